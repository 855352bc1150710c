"""The study's book: every trial, its state and its results, in Optuna's storage.

It is the only truth about a study. Ray Tune runs trials and forgets; whatever happens to a process, the next
one opens the book, goes on with the trials it finds RUNNING and proposes new ones. States mean what they
say: COMPLETE reached its last epoch, PRUNED was stopped early and keeps its intermediate values, FAIL
diverged or crashed and says why, RUNNING was interrupted.
"""

import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState

from gerbil_tune.config.load import compose, flatten, read_tree
from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.config.space import SpaceFile
from gerbil_tune.errors import ConfigError
from gerbil_tune.search.sampler import make_pruner, make_sampler
from gerbil_tune.search.space import named_point, sample

STUDY_FILE = "study.yaml"
_SECONDS = "seconds"


@dataclass(frozen=True)
class TrialTask:
    """A trial to run.

    Attributes:
        number: Its number in the study, from 0.
        config: The whole experiment.
        epochs_done: Above 0 when it goes on after an interruption.
    """

    number: int
    config: ExperimentConfig
    epochs_done: int


class StudyListener(Protocol):
    """Hears what happens to trials, in order."""

    def on_start(self, task: TrialTask, trial: FrozenTrial) -> None:
        """A trial begins or goes on."""

    def on_epoch(self, number: int, metrics: dict[str, float]) -> None:
        """A trial has done an epoch."""

    def on_end(self, trial: FrozenTrial, reason: str) -> None:
        """A trial is over: complete, pruned or failed."""


class StudyBook:
    """Opens or creates a study and keeps it truthful.

    Args:
        storage: Optuna storage URL.
        name: The study's name.
        space: What is searched.
        listeners: Told of every event.

    Raises:
        ConfigError: If the stored study searched another space.
    """

    def __init__(
        self, storage: str, name: str, space: SpaceFile, listeners: tuple[StudyListener, ...] = ()
    ) -> None:
        self.space = space
        self.listeners = listeners
        self.study = open_study(storage, name, space)
        self._live: dict[int, optuna.Trial] = {}
        self._stopped: dict[int, str] = {}
        self._started: dict[int, float] = {}
        self._interrupted = [
            trial.number
            for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        ]

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles whatever holds the book, for a restore that this project does without."""
        return {}

    def next_task(self) -> TrialTask:
        """Return an interrupted trial, else a new proposal."""
        trials = self.study.get_trials(deepcopy=False)
        if self._interrupted:
            number = self._interrupted.pop(0)
            trial = optuna.Trial(self.study, trials[number]._trial_id)
        else:
            self.study.sampler = make_sampler(self.space.study.sampler, len(trials))
            trial = self.study.ask()
        values = sample(trial, self.space.parameters)
        config = compose(self.space.base, values, f"trial {trial.number}")
        trial.set_user_attr("config", flatten(config))
        epochs_done = max(self._frozen(trial).intermediate_values, default=0)
        self._live[trial.number] = trial
        self._started[trial.number] = time.monotonic()
        task = TrialTask(trial.number, config, epochs_done)
        for listener in self.listeners:
            listener.on_start(task, self._frozen(trial))
        return task

    def report(self, number: int, metrics: dict[str, float]) -> bool:
        """Note an epoch; return whether the trial should stop here."""
        value = metrics.get(self.space.study.metric, math.nan)
        epoch = int(metrics["epoch"])
        trial = self._live[number]
        if not math.isfinite(value):
            return False
        if epoch not in self._frozen(trial).intermediate_values:
            trial.report(value, epoch)
        trial.set_user_attr("metrics", metrics)
        for listener in self.listeners:
            listener.on_epoch(number, metrics)
        if metrics["training_done"] or not trial.should_prune():
            return False
        self._stopped[number] = f"not among the best after {epoch} epochs"
        return True

    def finish(self, number: int, last: dict[str, Any] | None, error: str = "") -> None:
        """Close a trial by what it last reported; one that was merely interrupted stays RUNNING."""
        trial = self._live.pop(number)
        last = last or {}
        reason = error or str(last.get("failure", ""))
        seconds = time.monotonic() - self._started.pop(number)
        before = self._frozen(trial).user_attrs.get(_SECONDS, 0.0)
        trial.set_user_attr(_SECONDS, before + seconds)
        if reason:
            trial.set_user_attr("reason", reason)
            self.study.tell(trial, state=TrialState.FAIL)
        elif number in self._stopped:
            reason = self._stopped.pop(number)
            trial.set_user_attr("reason", reason)
            self.study.tell(trial, state=TrialState.PRUNED)
        elif last.get("training_done"):
            self.study.tell(trial, last["best_value"])
        else:
            return
        for listener in self.listeners:
            listener.on_end(self._frozen(trial), reason)

    def num_closed(self) -> int:
        """Trials that are complete, pruned or failed."""
        return sum(t.state.is_finished() for t in self.study.get_trials(deepcopy=False))

    def best(self) -> FrozenTrial | None:
        """Return the complete trial with the lowest value, or None."""
        complete = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return min(complete, key=lambda trial: (trial.value, trial.number), default=None)

    def set_trial_attribute(self, number: int, key: str, value: object) -> None:
        """Store a user attribute on a live trial."""
        self._live[number].set_user_attr(key, value)

    def config_of(self, trial: FrozenTrial) -> ExperimentConfig:
        """Rebuild the config of a stored trial."""
        values = {name.partition("@")[0]: value for name, value in trial.params.items()}
        return compose(self.space.base, values, f"trial {trial.number}")

    def _frozen(self, trial: optuna.Trial) -> FrozenTrial:
        return self.study._storage.get_trial(trial._trial_id)


def storage_url(study_dir: Path) -> str:
    """Return the study's own SQLite storage, as an absolute URL."""
    return f"sqlite:///{(study_dir.resolve() / 'optuna.db').as_posix()}"


def stored_study(study_dir: Path) -> optuna.Study:
    """Open the study of a folder for reading.

    Raises:
        ConfigError: If its storage holds none.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    facts = read_tree(study_dir / STUDY_FILE)
    try:
        return optuna.load_study(study_name=str(facts["name"]), storage=str(facts["storage"]))
    except KeyError as error:
        raise ConfigError(
            f"{study_dir / STUDY_FILE}: no study {error} is stored; run gerbil-tune search again"
        ) from None


def write_study_file(study_dir: Path, name: str, storage: str, space: SpaceFile) -> None:
    """Write the resolved study beside its results."""
    content = {"name": name, "storage": storage, "space": space.model_dump(mode="json")}
    path = study_dir / STUDY_FILE
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(yaml.safe_dump(content, sort_keys=False))
    temporary.replace(path)


def open_study(storage: str, name: str, space: SpaceFile) -> optuna.Study:
    """Create a study, or open one that searched the same space.

    Raises:
        ConfigError: If it searched another, or the storage cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    points = [named_point(point, space.parameters) for point in space.points]
    try:
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            direction="minimize",
            load_if_exists=True,
            sampler=make_sampler(space.study.sampler, 0),
            pruner=make_pruner(space.study.trial_scheduler),
        )
    except Exception as error:  # the storage's driver decides the type
        reason = " ".join(str(error).split())
        raise ConfigError(f"the study's storage {storage} cannot be opened: {reason}") from None
    searched = space.model_dump(mode="json", include={"base", "parameters"})
    stored = study.user_attrs.get("space")
    if stored is None:
        study.set_user_attr("space", searched)
        study.set_user_attr("metric", space.study.metric)
        for point in points:
            study.enqueue_trial(point)
    elif stored != searched or study.user_attrs["metric"] != space.study.metric:
        raise ConfigError(
            f"the study {name!r} already holds {len(study.trials)} trials of another space; "
            "give the new search another --name, or undo the change in the space file"
        )
    return study
