"""Which of several animals called: the probability of each, and when it is enough.

Every animal's keypoints are where its track says; the one that called is where the model's density says. With
p(x_a) the density at animal a the probability of it is p(x_a) over the sum of all. Two things make this true
of real data. Densities are wrong in their tails, where the other animal is: a share of the calls, spread
evenly over the arena, and a power of the density are fitted to calls whose caller is known. And a caller is
named only where the probability is so high that of the named ones at most the stated share are wrong: the
threshold is the lowest one of which this is sure on the calls with known callers (Angelopoulos et al. 2021,
Learn then Test, arXiv:2110.01052, with thresholds tried from the highest on).

Letters: N events, A animals, K keypoints, D axes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gerbil_tune.errors import ConfigError
from gerbil_tune.evaluation.blocks import Floats, event_blocks
from gerbil_tune.models.density import LocationDensity

NOBODY = -1
"""Emitter of a call whose caller is not clear."""
CONFIDENCE = 0.95
"""How sure it is that the error rate is kept."""
FEWEST_EVENTS = 100
_BACKGROUNDS = (0.0, 1e-4, 1e-3, 0.003, 0.01, 0.03, 0.1)
_POWERS = (0.2, 0.3, 0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0)


@dataclass(frozen=True, slots=True)
class AssignmentRule:
    """What turns densities at animals into probabilities that can be believed.

    Attributes:
        power: Of the density.
        background: Share of calls that are anywhere in the arena.
        threshold: Probability from which on a caller is named; over 1: never.
        error_rate: Share of wrong ones among those that are named, at most.
        num_events: Calls with known callers that it was fitted to.
    """

    power: float
    background: float
    threshold: float
    error_rate: float
    num_events: int


def log_densities_at_animals(
    density: LocationDensity, tracks_mm_NAKD: NDArray[np.floating]
) -> Floats:
    """Log density of the model at each animal's keypoints.

    Args:
        density: Calibrated, of N events.
        tracks_mm_NAKD: Where the animals were during each event, (N, A, K, D) mm, of the model's keypoints
            and axes; NaN where an animal was not seen.

    Returns:
        (N, A) nats, of a density per mm^(K D); NaN where a track is.
    """
    tracks_NAKD = torch.as_tensor(np.asarray(tracks_mm_NAKD, np.float64))
    found_NA = np.empty(tracks_NAKD.shape[:2])
    num_animals = tracks_NAKD.shape[1]
    for rows, block in event_blocks(density, num_animals):
        places_ANKD = tracks_NAKD[rows].transpose(0, 1).to(block.means_mm_BKMD.device)
        found_NA[rows] = block.log_density_BK(places_ANKD).sum(-1).T.cpu().numpy()
    return found_NA


def caller_probabilities(
    log_densities_NA: Floats, log_uniform: float, *, power: float, background: float
) -> Floats:
    """Probability that each animal called, (N, A); rows add up to one.

    An animal that was not seen may be anywhere: its density is the uniform one.

    Args:
        log_densities_NA: From ``log_densities_at_animals``.
        log_uniform: Log of the uniform density over the arena, of all keypoints and axes together.
        power: Of the density.
        background: Share of calls that are anywhere.
    """
    seen_NA = np.isfinite(log_densities_NA)
    relative_NA = np.where(seen_NA, log_densities_NA - log_uniform, 0.0)
    stated_NA = power * relative_NA + math.log1p(-background)
    mixed_NA = np.logaddexp(stated_NA, math.log(background)) if background > 0 else stated_NA
    mixed_NA = np.where(seen_NA, mixed_NA, 0.0)
    weights_NA = np.exp(mixed_NA - mixed_NA.max(axis=1, keepdims=True))
    probabilities_NA: Floats = weights_NA / weights_NA.sum(axis=1, keepdims=True)
    return probabilities_NA


def fit_assignment(
    log_densities_NA: Floats,
    callers_N: NDArray[np.integer],
    log_uniform: float,
    *,
    error_rate: float = 0.05,
) -> AssignmentRule:
    """Fit power, background and threshold to calls whose caller is known.

    Args:
        log_densities_NA: From ``log_densities_at_animals``.
        callers_N: Which animal called, (N,), 0 to A - 1.
        log_uniform: See ``caller_probabilities``.
        error_rate: Share of wrong ones among those that are named, at most; between 0 and 1.

    Raises:
        ConfigError: If there are too few calls, or the error rate is no share.
    """
    num_events = len(callers_N)
    if not 0.0 < error_rate < 1.0:
        raise ConfigError(
            f"the error rate of the assignment must be between 0 and 1, but is {error_rate:g}; the usual "
            "one is 0.05"
        )
    if num_events < FEWEST_EVENTS:
        raise ConfigError(
            f"assignment is calibrated on at least {FEWEST_EVENTS} calls with known callers, but there are "
            f"{num_events}; give more"
        )
    rows = np.arange(num_events)
    best = (-math.inf, 1.0, 0.0)
    for power in _POWERS:
        for background in _BACKGROUNDS:
            options = {"power": power, "background": background}
            found_NA = caller_probabilities(log_densities_NA, log_uniform, **options)
            likelihood = float(np.log(np.maximum(found_NA[rows, callers_N], 1e-300)).mean())
            best = max(best, (likelihood, power, background))
    _, power, background = best
    found_NA = caller_probabilities(
        log_densities_NA, log_uniform, power=power, background=background
    )
    is_right_N = found_NA.argmax(axis=1) == callers_N
    threshold = _threshold(found_NA.max(axis=1), is_right_N, error_rate)
    return AssignmentRule(power, background, threshold, error_rate, num_events)


def assign(
    log_densities_NA: Floats, log_uniform: float, rule: AssignmentRule
) -> tuple[Floats, NDArray[np.int64]]:
    """Name the caller of each event where it is clear.

    Returns:
        Probability of each animal (N, A), and the caller (N,), ``NOBODY`` where none is convincing.
    """
    found_NA = caller_probabilities(
        log_densities_NA, log_uniform, power=rule.power, background=rule.background
    )
    callers_N = found_NA.argmax(axis=1)
    callers_N[found_NA.max(axis=1) < rule.threshold] = NOBODY
    return found_NA, callers_N


def log_uniform_density(arena_mm: Sequence[float], num_keypoints: int, num_axes: int) -> float:
    """Log of the uniform density over the arena, of all keypoints and axes together, nats.

    Raises:
        ConfigError: If the arena has fewer widths than there are axes.
    """
    if len(arena_mm) < num_axes:
        raise ConfigError(
            f"the arena has the widths {tuple(arena_mm)} mm, but locations have {num_axes} axes; give all "
            "widths with arena_mm"
        )
    return -num_keypoints * math.log(math.prod(arena_mm[:num_axes]))


def _threshold(probability_N: Floats, is_right_N: NDArray[np.bool_], error_rate: float) -> float:
    """Lowest probability from which on the error rate is kept for sure; over 1 where there is none.

    Thresholds are tried from the highest on, and the first that cannot be trusted ends it: so no correction
    is due for having tried many.
    """
    from scipy.stats import beta

    order_N = np.argsort(-probability_N, kind="stable")
    ordered_N = probability_N[order_N]
    wrong_N = np.cumsum(~is_right_N[order_N])
    counts_N = np.arange(1, len(order_N) + 1)
    # Upper end of the exact binomial interval (Clopper & Pearson 1934).
    upper_N = beta.ppf(CONFIDENCE, wrong_N + 1, np.maximum(counts_N - wrong_N, 1e-9))
    # The first few can prove nothing: even without an error their interval is wide.
    fewest = math.ceil(math.log(1 - CONFIDENCE) / math.log(1 - error_rate))
    threshold = 1.1
    last_of_ties_N = np.append(ordered_N[:-1] != ordered_N[1:], True)
    for count in counts_N[fewest - 1 :]:
        if not last_of_ties_N[count - 1]:
            continue
        if upper_N[count - 1] > error_rate:
            break
        threshold = float(ordered_N[count - 1])
    return threshold
