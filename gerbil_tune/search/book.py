"""The study's book: every trial, its state and its results, in Optuna's storage.

It is the only truth about a study. Ray Tune runs trials and forgets; whatever happens to a process, the next
one opens the book, goes on with the trials it finds RUNNING and proposes new ones. States mean what they
say: COMPLETE reached its last epoch, PRUNED was stopped early and keeps its intermediate values, FAIL
diverged or crashed and says why, RUNNING runs, waits for its promotion or was interrupted.
"""

import math
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.config.space import SpaceFile
from gerbil_tune.config.study import PopulationConfig
from gerbil_tune.search.budget import Budget, Spent
from gerbil_tune.search.curves import TrialCurve, read_curves
from gerbil_tune.search.explore import explore
from gerbil_tune.search.policies import GO_ON, Step, Verdict, make_policy
from gerbil_tune.search.proposer import Check, Proposer
from gerbil_tune.search.space import values_by_path
from gerbil_tune.search.storage import is_own, open_study
from gerbil_tune.search.stored_trials import StoredTrials
from gerbil_tune.search.tasks import Ending, NoTask, StudyListener, TrialTask
from gerbil_tune.search.trial_records import (
    in_order_of_their_end,
    is_interrupted,
    num_begun,
    num_closed,
    unfilled_places,
    value_of,
)

_MOST_CRASHES = 2
"""Times that a trial whose process died goes on from its checkpoint."""


@dataclass
class _Live:
    """A trial that runs."""

    trial: optuna.Trial
    curve: TrialCurve
    attributes: dict[str, Any]
    started: float
    is_copy: bool = False
    verdict: Verdict = GO_ON


class StudyBook:
    """Opens or creates a study and keeps it truthful.

    Args:
        storage: Optuna storage, usually as a URL.
        name: The study's name.
        space: What is searched.
        listeners: Told of every event.
        check: Of the limits on a configuration.

    Attributes:
        study: The stored study.
        disk_full: What was said when a trial could not write any more; empty otherwise.
    """

    def __init__(
        self,
        storage: str | optuna.storages.BaseStorage,
        name: str,
        space: SpaceFile,
        listeners: tuple[StudyListener, ...] = (),
        check: Check | None = None,
    ) -> None:
        self.space = space
        self.listeners = listeners
        self.study = open_study(storage, name, space)
        self.trials = StoredTrials(self.study)
        self.proposer = Proposer(self.trials, space, check, self._tell_of_end)
        self.disk_full = ""
        self._policy = make_policy(space.study.trial_scheduler, space.study.sampler.seed)
        self._curves = read_curves(self.trials.all())
        self._live: dict[int, _Live] = {}
        self._failures = 0
        self._before_s = float(self.study.user_attrs.get("spent_s", 0.0))
        self._opened = time.monotonic()
        stored = self.trials.all()
        self._ready = [t.number for t in stored if is_interrupted(t)]
        self._replaced = [Step(n, donor) for n, donor in unfilled_places(stored)]
        self._finished_values = [value_of(t) for t in in_order_of_their_end(stored)]

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles whatever holds the book, for a restore that this project does without."""
        return {}

    # What runs next

    def next_task(self, *, may_begin: bool = True) -> TrialTask | NoTask:
        """Choose an interrupted trial, one that the trial scheduler has go on, or a new one.

        Args:
            may_begin: Whether new trials may begin, as the budget sees it.

        Raises:
            LaunchError: If the sampler proposes only what is beyond the limits.
        """
        while self._ready:
            task = self._resume(self._ready.pop(0))
            if task is not None:
                return task
        if self._replaced:
            return self._copy(self._replaced.pop(0))
        may_begin = may_begin and self.proposer.has_more()
        task = self._from_policy(may_begin) if self._policy.resumes_first or not may_begin else None
        if task is None and may_begin:
            begun = self.proposer.propose(self._paused())
            task = self._begin(*begun) if begun is not None else self._from_policy(False)
        if task is not None:
            return task
        return NoTask.NOW if self._live else NoTask.EVER

    def _from_policy(self, may_begin: bool) -> TrialTask | None:
        nothing_else = not self._live and not may_begin
        step = self._policy.next_step(self._curves, nothing_else=nothing_else)
        if step is None:
            return None
        curve = self._curves[step.number]
        if step.donor is not None:
            return self._replace(step, curve)
        attributes = {"cleared_epoch": curve.paused_at, "paused_at": 0}
        trial = self.trials.handle(step.number)
        for name, value in attributes.items():
            trial.set_user_attr(name, value)
        curve.cleared_epoch, curve.paused_at = curve.paused_at, 0
        return self._resume(step.number)

    def _replace(self, step: Step, curve: TrialCurve) -> TrialTask:
        """End a member of the population, and begin a changed copy of a better one."""
        trial = self.trials.handle(step.number)
        reason = f"replaced by a changed copy of trial {step.donor} after {curve.paused_at} epochs"
        trial.set_user_attr("donor", step.donor)
        self._close(trial, curve, TrialState.PRUNED, reason, "replaced")
        return self._copy(step)

    def _copy(self, step: Step) -> TrialTask:
        assert step.donor is not None
        config = self.space.study.trial_scheduler
        assert isinstance(config, PopulationConfig)
        values = explore(
            values_by_path(self.trials[step.donor].params),
            self.space,
            config,
            self.space.study.sampler.seed + len(self.trials),
        )
        attributes = {
            "parent": step.donor,
            "replaces": step.number,
            "root": self.trials[step.number].user_attrs.get("root", step.number),
        }
        trial, experiment = self.proposer.copy(values, attributes)
        return self._begin(trial, experiment, copy_of=step.donor)

    def _begin(
        self, trial: optuna.Trial, config: ExperimentConfig, copy_of: int | None = None
    ) -> TrialTask:
        self._curves[trial.number] = TrialCurve(trial.number, config.training.epochs)
        return self._start(trial, TrialTask(trial.number, config, 0, copy_of))

    def _resume(self, number: int) -> TrialTask | None:
        trial = self.trials.handle(number)
        attributes = self.trials[number].user_attrs
        if "config" not in attributes:  # killed before it had begun
            config = self.proposer.begin_again(number, self._paused())
            return None if config is None else self._begin(trial, config, attributes.get("parent"))
        config = self.config_of(self.trials.read(trial))
        curve = self._curves[number]
        # A copy that has not reported yet may have to be made again.
        copy_of = None if curve.values else attributes.get("parent")
        epochs_done = max(curve.values, default=0)
        return self._start(trial, TrialTask(number, config, epochs_done, copy_of))

    def _start(self, trial: optuna.Trial, task: TrialTask) -> TrialTask:
        curve = self._curves[task.number]
        self._live[task.number] = _Live(
            trial, curve, dict(trial.user_attrs), time.monotonic(), task.copy_of is not None
        )
        frozen = self.trials.read(trial)
        for listener in self.listeners:
            listener.on_start(task, frozen)
        return task

    # What it reports

    def report(self, number: int, metrics: dict[str, float]) -> bool:
        """Note an epoch; return whether the trial's process should end here."""
        live = self._live[number]
        if (
            live.is_copy
        ):  # it begins by repeating the last epoch of the trial that it was copied from
            live.is_copy = False
            return False
        value = metrics.get(self.space.study.metric, math.nan)
        epoch = int(metrics["epoch"])
        if not math.isfinite(value):
            return False
        is_old = epoch < max(live.curve.values, default=0)
        if is_old and epoch in live.curve.values:  # told again by a run that goes on
            return False
        if epoch not in live.curve.values:
            live.curve.values[epoch] = value
            if self.space.study.further_objectives:
                live.trial.set_user_attr("curve", live.curve.values)
            else:
                live.trial.report(value, epoch)
        if not is_old:
            live.trial.set_user_attr("metrics", metrics)
        for listener in self.listeners:
            listener.on_epoch(number, metrics)
        if is_old or metrics["training_done"] or epoch <= live.curve.cleared_epoch:
            return False
        live.verdict = self._policy.after_epoch(live.curve, epoch, self._curves)
        return live.verdict.stop or live.verdict.pause

    def finish(self, number: int, ending: Ending) -> None:
        """Close a trial whose process has ended, or note why it has not come to its end."""
        live = self._live.pop(number)
        spent = live.attributes.get("seconds", 0.0) + time.monotonic() - live.started
        live.trial.set_user_attr("seconds", spent)
        if ending.kind == "done":
            self._complete(live, ending)
        elif ending.kind in ("diverged", "error"):
            self._fail(live, ending)
        elif ending.kind in ("crashed", "out of memory"):
            self._try_again(live, ending)
        elif live.verdict.stop:
            self._close(
                live.trial, live.curve, TrialState.PRUNED, live.verdict.reason, "early stop"
            )
        else:
            self._pause(live, ending)

    def _complete(self, live: _Live, ending: Ending) -> None:
        best = {
            name.removeprefix("best_"): value
            for name, value in ending.last.items()
            if name.startswith("best_val_")
        }
        best["predict_ms_per_event"] = ending.last.get("predict_ms_per_event", math.nan)
        live.trial.set_user_attr("best_metrics", {k: v for k, v in best.items() if v == v})
        values = [best.get(name, math.nan) for name in self.space.study.objectives]
        values[0] = ending.last["best_value"]
        if not all(math.isfinite(value) for value in values):
            self._fail(live, Ending("error", "an objective of its best epoch is not finite"))
            return
        self._close(live.trial, live.curve, TrialState.COMPLETE, values=values)

    def _fail(self, live: _Live, ending: Ending) -> None:
        self._failures += 1
        self._close(live.trial, live.curve, TrialState.FAIL, ending.reason, ending.kind)

    def _try_again(self, live: _Live, ending: Ending) -> None:
        """Let a trial go on from its checkpoint, as often as that makes sense."""
        mishaps = [*live.attributes.get("mishaps", []), ending.reason]
        live.trial.set_user_attr("mishaps", mishaps)
        pieces = live.attributes.get("accumulate_steps", 1)
        if ending.kind == "out of memory" and pieces > 1:
            self._fail(live, ending)
        elif ending.kind == "out of memory":
            live.trial.set_user_attr("accumulate_steps", 2 * pieces)
            self._go_on_later(live, f"{ending.reason}; again with half of a batch at a time")
        elif len(mishaps) > _MOST_CRASHES:
            self._fail(live, ending)
        else:
            self._go_on_later(live, f"{ending.reason}; it goes on from its checkpoint")

    def _go_on_later(self, live: _Live, reason: str) -> None:
        self._ready.append(live.trial.number)
        self._tell_of_pause(live, reason)

    def _pause(self, live: _Live, ending: Ending) -> None:
        if ending.kind == "disk full":
            self.disk_full = ending.reason
        if live.verdict.pause:
            live.curve.paused_at = max(live.curve.values)
            live.trial.set_user_attr("paused_at", live.curve.paused_at)
        else:
            self._ready.append(live.trial.number)
        self._tell_of_pause(live, live.verdict.reason or ending.reason or "stopped on request")

    def _tell_of_pause(self, live: _Live, reason: str) -> None:
        frozen = self.trials.read(live.trial)
        for listener in self.listeners:
            listener.on_pause(frozen, reason)

    def close_unfinished(self, reason: str) -> None:
        """End every trial that has not come to its end as pruned: the study is over."""
        for trial in self.trials.in_state(TrialState.RUNNING):
            curve = self._curves.setdefault(trial.number, TrialCurve(trial.number, 0))
            live_again = self.trials.handle(trial.number)
            why = f"waited after {curve.paused_at} epochs when " if curve.paused_at else ""
            kind = "early stop" if curve.paused_at else "budget"
            self._close(live_again, curve, TrialState.PRUNED, f"{why}{reason}", kind)
        self._ready.clear()

    def _close(
        self,
        trial: optuna.Trial,
        curve: TrialCurve,
        state: TrialState,
        reason: str = "",
        kind: str = "",
        values: list[float] | None = None,
    ) -> None:
        if reason:
            trial.set_user_attr("reason", reason)
            trial.set_user_attr("reason_kind", kind)
        self.study.tell(trial, values, state=state)
        curve.is_over = True
        frozen = self.trials.read(trial)
        if kind != "replaced":
            self._finished_values.append(value_of(frozen))
        self._tell_of_end(frozen)

    def _tell_of_end(self, trial: FrozenTrial) -> None:
        for listener in self.listeners:
            listener.on_end(trial, trial.user_attrs.get("reason", ""))

    # What there is

    def num_begun(self) -> int:
        """Own trials that have begun, without copies and without those that are beyond the limits."""
        return num_begun(self.trials.all())

    def num_closed(self) -> int:
        """Those of ``num_begun`` that are over."""
        return num_closed(self.trials.all())

    def spent(self) -> Spent:
        """What the study has spent so far, this run included."""
        best, since = math.inf, 0
        for value in self._finished_values:
            since = 0 if value < best else since + 1
            best = min(best, value)
        return Spent(
            time_s=self._before_s + time.monotonic() - self._opened,
            epochs=sum(len(curve.values) for curve in self._curves.values()),
            trials_since_best=since,
            failures=self._failures,
        )

    def note_time(self) -> None:
        """Write down the time spent, which a killed process could not do any more.

        A storage that fails is told of by whoever writes what cannot be done without.
        """
        with suppress(StorageInternalError):
            self.study.set_user_attr("spent_s", self.spent().time_s)

    def budget(self) -> Budget:
        """The study's limits."""
        return Budget.of_study(self.space.study)

    def best(self) -> FrozenTrial | None:
        """Return the complete own trial with the lowest first objective, or None."""
        own = [trial for trial in self.trials.in_state(TrialState.COMPLETE) if is_own(trial)]
        return min(own, key=lambda trial: (trial.values[0], trial.number), default=None)

    def config_of(self, trial: FrozenTrial) -> ExperimentConfig:
        """Rebuild the config of a stored trial."""
        config = self.proposer.config_of(trial.number, values_by_path(trial.params))
        pieces = trial.user_attrs.get("accumulate_steps")
        if pieces is None:
            return config
        pieces *= config.training.accumulate_steps
        training = config.training.model_copy(update={"accumulate_steps": pieces})
        return config.model_copy(update={"training": training})

    def _paused(self) -> list[int]:
        return [c.number for c in self._curves.values() if c.paused_at and not c.is_over]
