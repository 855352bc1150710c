"""Who proposes the next configuration: a list known beforehand, or a sampler that has learnt from trials.

Nothing is remembered outside the study's storage. A proposal depends on what the study holds and on its seed,
so a study continued in another process proposes what it would have proposed without the interruption.
"""

from collections.abc import Container

import optuna
from optuna.trial import FrozenTrial

from gerbil_tune.config.load import Scalar
from gerbil_tune.config.space import SpaceFile
from gerbil_tune.config.study import SamplerConfig
from gerbil_tune.search.cma import CmaSampler
from gerbil_tune.search.grid import grid_point, num_points
from gerbil_tune.search.quasi_random import quasi_random_point
from gerbil_tune.search.space import named_point
from gerbil_tune.search.study_view import ViewSampler

_LEARNING = ("tpe", "gp", "cmaes")


def make_sampler(
    config: SamplerConfig,
    space: SpaceFile,
    trials: list[FrozenTrial],
    number: int,
    paused: Container[int] = (),
) -> optuna.samplers.BaseSampler:
    """Build a sampler for one proposal.

    Args:
        config: Which.
        space: What is searched.
        trials: That the study holds, in any state.
        number: Of the new trial; it seeds the sampler, so that it never repeats itself.
        paused: Numbers of trials that are RUNNING in the storage and only wait.
    """
    seed = config.seed + number
    if config.kind == "tpe":
        tpe = optuna.samplers.TPESampler(seed=seed, n_startup_trials=config.startup_trials)
        return ViewSampler(tpe, trials, paused)
    if config.kind == "gp":
        gp = optuna.samplers.GPSampler(
            seed=seed,
            n_startup_trials=config.startup_trials,
            independent_sampler=optuna.samplers.RandomSampler(seed=seed),
            warn_independent_sampling=False,
        )
        return ViewSampler(gp, trials, paused)
    if config.kind == "cmaes":
        startup = config.startup_trials
        return CmaSampler(space.parameters, trials, seed=seed, startup_trials=startup)
    return optuna.samplers.RandomSampler(seed=seed)


def fixed_proposal(space: SpaceFile, index: int, num_known: int = 0) -> dict[str, Scalar] | None:
    """Values that a proposal must have, if they are known beforehand.

    Args:
        space: What is searched.
        index: Proposals before this one: all trials but points and those taken from earlier studies.
            Those found infeasible count, or the next would be the same again.
        num_known: Trials taken from earlier studies. They stand for as many of the quasi-random start, as
            they do for the sampler's own.

    Returns:
        Value by Optuna's name; None where the sampler is to be asked, and beyond the end of a grid.
    """
    config = space.study.sampler
    if config.kind == "grid":
        if index >= num_points(space):
            return None
        return named_point(grid_point(space, index), space.parameters)
    starts = config.kind in _LEARNING and config.startup == "quasi-random"
    if config.kind == "quasi-random" or (starts and num_known + index < config.startup_trials):
        point = quasi_random_point(space, index, config.seed)
        return named_point(point, space.parameters)
    return None


def num_proposals(space: SpaceFile) -> int | None:
    """Proposals after which there is nothing more to try (a grid), or None."""
    return num_points(space) if space.study.sampler.kind == "grid" else None
