"""Which model comes out of a study: the best trials trained whole, and compared on events they never saw.

With several refits the champion is the one with the lowest figure on the test events, in the study's metric;
or their ensemble, if the paired bootstrap interval of its difference from that one is wholly on its side.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.data.events import EventSet
from gerbil_tune.errors import ConfigError, NonFiniteLossError
from gerbil_tune.evaluation.results import EvaluationResult, TableRow
from gerbil_tune.search.comparison import Predict, judge, predict_all
from gerbil_tune.search.refit import Refit, RefitSite, Refitter, Train, train_on_cluster
from gerbil_tune.training.export import export_ensemble

SELECTION = "selection"
"""Study attribute: what ``Selection.to_json`` returns."""
ENSEMBLE = "ensemble"
"""Study attribute: the bundle of the last ensemble, and those of its members."""
COMPARISON_FILE = "comparison.h5"
"""In the study's folder: the predictions that were compared, as an ``EvaluationResult``."""

_ON_TEST = (
    "the refits are compared on the test events; as these choose the champion, its own figures on them "
    "flatter it a little"
)
_ON_VALIDATION = (
    "there are no test events, so the refits are compared on the validation events; as these also chose "
    "each refit's best epoch and calibration, all figures flatter"
)


@dataclass(frozen=True)
class Selection:
    """The champion, and why it is.

    Attributes:
        bundle: Of the champion.
        trial: The best of the refitted trials.
        ensemble_of: Trials of the champion's members where it is an ensemble, else empty.
        refits: All, the best trial of the search first; those that failed have no bundle.
        evaluation: What the refits and their ensemble say of the events they were compared on; None where
            there was one refit only, and nothing to compare.
        compared_on: Which events those are.
        sentences: What the comparison showed.
    """

    bundle: Path
    trial: int
    ensemble_of: tuple[int, ...]
    refits: tuple[Refit, ...]
    evaluation: EvaluationResult | None = None
    compared_on: Literal["test", "validation", ""] = ""
    sentences: tuple[str, ...] = ()

    @property
    def rows(self) -> list[TableRow]:
        """Of the table of the comparison, for ``render_table``."""
        return [] if self.evaluation is None else self.evaluation.rows()

    def to_json(self) -> dict[str, Any]:
        """Return what the study keeps of it."""
        return {
            "bundle": str(self.bundle),
            "trial": self.trial,
            "ensemble_of": list(self.ensemble_of),
            "compared_on": self.compared_on,
            "events": 0 if self.evaluation is None else len(self.evaluation.locations_mm_NKD),
            "rows": [asdict(row) for row in self.rows],
            "sentences": list(self.sentences),
        }


def top_trials(study: optuna.Study, k: int) -> list[FrozenTrial]:
    """The k best complete trials of a study's own, no two of one configuration, the best first.

    With several objectives the trials of the Pareto front come before all others. Among equals the lowest
    first objective counts.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    own = [trial for trial in complete if "warm_start" not in trial.user_attrs]
    dominated = _is_dominated(np.array([trial.values for trial in own]))
    ranked = sorted(
        zip(dominated, own, strict=True),
        key=lambda pair: (pair[0], pair[1].values[0], pair[1].number),
    )
    by_config: dict[str, FrozenTrial] = {}
    for _, trial in ranked:
        config = trial.user_attrs.get("config", trial.params)
        by_config.setdefault(json.dumps(config, sort_keys=True), trial)
    return list(by_config.values())[:k]


def _is_dominated(values: NDArray[Any]) -> list[bool]:
    """Of each row, whether another is nowhere above and somewhere below it."""
    if len(values) == 0 or values.shape[1] == 1:
        return [False] * len(values)
    return [
        bool(np.any(np.all(values <= row, axis=1) & np.any(values < row, axis=1))) for row in values
    ]


def select_champion(
    study: optuna.Study,
    config_of: Callable[[FrozenTrial], ExperimentConfig],
    site: RefitSite,
    *,
    study_dir: Path,
    root: Path,
    top_k: int,
    refit_epochs: int | None,
    test_events: EventSet | None,
    predict: Predict,
    use_gpu: bool,
    say: Callable[[str], None],
    on_epoch: Callable[[dict[str, float], int], None] = lambda metrics, epochs: None,
    train: Train = train_on_cluster,
) -> Selection:
    """Train the best trials whole, compare them and choose; what is done already is not done again.

    The study's attributes champion, bundle, ``REFITS``, ``ENSEMBLE`` and ``SELECTION`` then tell of it.

    Args:
        study: With at least one complete trial.
        config_of: The experiment of a trial.
        site: What the study's trials share.
        study_dir: The study's folder.
        root: Of the bundles, usually ``trained_models``.
        top_k: Trials to train whole, if there are as many.
        refit_epochs: Epochs of each; None: as searched.
        test_events: With locations; None: the refits are compared on the validation events.
        predict: Predicts events with a bundle.
        use_gpu: A GPU for each worker.
        say: Told in a sentence what happens.
        on_epoch: Told the metrics and the number of epochs of a training after each.
        train: Does a training.

    Raises:
        ConfigError: If no trial is complete.
        NonFiniteLossError: If all refits diverged.
        StoppedError: If a training was stopped on request; the same call goes on.
    """
    trials = top_trials(study, top_k)
    if not trials:
        raise ConfigError(
            f"no trial of the study {study.study_name!r} was completed, so there is nothing to keep; its "
            f"trials say why: gerbil-tune report {study.study_name}"
        )
    refitter = Refitter(
        study, config_of, site, study_dir, root, refit_epochs, use_gpu, train, say, on_epoch
    )
    refits = tuple(refitter.refit(trial, keep_predictions=len(trials) > 1) for trial in trials)
    bundles = {refit.trial: refit.bundle for refit in refits if refit.bundle is not None}
    if not bundles:
        raise NonFiniteLossError(refits[0].reason)
    if len(bundles) == 1:
        ((number, bundle),) = bundles.items()
        selection = Selection(bundle, number, (), refits)
    else:
        selection = _compare(refitter, refits, test_events, predict)
    study.set_user_attr("champion", selection.trial)
    study.set_user_attr("bundle", str(selection.bundle))
    study.set_user_attr(SELECTION, selection.to_json())
    return selection


def _compare(
    refitter: Refitter, refits: tuple[Refit, ...], test_events: EventSet | None, predict: Predict
) -> Selection:
    study, site = refitter.study, refitter.site
    usable = {_name(refit): refit for refit in refits if refit.bundle is not None}
    bundles = {name: refit.bundle for name, refit in usable.items() if refit.bundle is not None}
    members = [(refit.run_dir, bundles[name]) for name, refit in usable.items()]
    ensemble = _ensemble(study, members, refitter.root)
    events = site.splits.validation if test_events is None else test_events
    evaluation = predict_all(bundles, ensemble, events, site.setup, predict)
    evaluation.save(refitter.study_dir / COMPARISON_FILE)
    verdict = judge(evaluation, site.metric.removeprefix("val_"), events.groups)
    return Selection(
        bundle=ensemble if verdict.ensemble_wins else bundles[verdict.winner],
        trial=usable[verdict.winner].trial,
        ensemble_of=tuple(r.trial for r in usable.values()) if verdict.ensemble_wins else (),
        refits=refits,
        evaluation=evaluation,
        compared_on="validation" if test_events is None else "test",
        sentences=(
            _ON_VALIDATION if test_events is None else _ON_TEST,
            *verdict.sentences,
        ),
    )


def _ensemble(study: optuna.Study, members: Sequence[tuple[Path, Path]], root: Path) -> Path:
    """Bundle of the ensemble of refits (run folder, bundle), made once."""
    names = [str(bundle) for _, bundle in members]
    known = study.user_attrs.get(ENSEMBLE, {})
    if known.get("members") == names and Path(known["bundle"]).is_dir():
        return Path(known["bundle"])
    bundle = export_ensemble(members, root)
    study.set_user_attr(ENSEMBLE, {"members": names, "bundle": str(bundle)})
    return bundle


def _name(refit: Refit) -> str:
    return f"trial {refit.trial}"
