"""Optuna's samplers and pruners from a study config."""

import optuna

from gerbil_tune.config.space import SamplerConfig, TrialSchedulerConfig


def make_sampler(config: SamplerConfig, num_trials: int) -> optuna.samplers.BaseSampler:
    """Build a sampler for one proposal.

    It is seeded by the number of trials that the study holds, so that a study continued in another process
    proposes what the same study run in one go would have proposed, and never repeats itself.
    """
    seed = config.seed + num_trials
    if config.kind == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=config.startup_trials)


def make_pruner(config: TrialSchedulerConfig) -> optuna.pruners.BasePruner:
    """Build what stops trials early.

    Optuna's own: its state lives in the study's storage, so it survives what the study survives. ASHA is
    Li et al. 2020 (arXiv:1810.05934), in the variant that stops.
    """
    if config.kind == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(
            min_resource=config.grace_epochs, reduction_factor=config.reduction_factor
        )
    if config.kind == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=config.grace_epochs)
    return optuna.pruners.NopPruner()
