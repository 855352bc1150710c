"""Which parameters decided whether a trial was among the best."""

import warnings

import optuna
from optuna.trial import TrialState

from gerbil_tune.search.storage import curve_of

_MIN_TRIALS = 10


def importances(study: optuna.Study) -> tuple[dict[str, float], str]:
    """How much each parameter decided whether a trial was among the best (PED-ANOVA).

    Parameters of branches count too (Conditional PED-ANOVA, arXiv:2601.20800). The best tenth of the trials
    is compared with all, or the best five where a tenth is fewer. A pruned trial counts with its best epoch:
    that it was stopped says something about its parameters. Of several objectives the first is judged.

    Returns:
        Share by Optuna's name, highest first, adding up to 1; and a sentence that says why where it is
        empty.
    """
    judged = _judged(study)
    if len(judged.trials) < _MIN_TRIALS:
        return {}, (
            f"Importance needs at least {_MIN_TRIALS} complete or pruned trials, "
            f"but the study has {len(judged.trials)}."
        )
    if len({trial.value for trial in judged.trials}) == 1:
        return {}, "Importance cannot be computed: all trials have the same value."
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(
        target_quantile=max(0.1, 5 / len(judged.trials))
    )
    try:
        with warnings.catch_warnings():
            # It warns of branches with few trials; the caption of the figure says so to the reader.
            warnings.simplefilter("ignore")
            shares = optuna.importance.get_param_importances(judged, evaluator=evaluator)
    except (ValueError, RuntimeError, ArithmeticError) as error:
        return {}, f"Importance cannot be computed: {' '.join(str(error).split())}."
    if not shares or not sum(shares.values()) > 0.0:
        return (
            {},
            "Importance cannot be computed: no parameter tells the best trials from the rest.",
        )
    return dict(shares), ""


def _judged(study: optuna.Study) -> optuna.Study:
    """A study in memory of the complete trials and, with their best epochs, of the pruned ones."""
    judged = optuna.create_study()
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)):
        # Optuna gives a pruned trial its last epoch for a value.
        complete = trial.state is TrialState.COMPLETE
        values = [trial.values[0]] if complete else list(curve_of(trial).values())
        if values:
            judged.add_trial(
                optuna.trial.create_trial(
                    params=trial.params, distributions=trial.distributions, value=min(values)
                )
            )
    return judged
