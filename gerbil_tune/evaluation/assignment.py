"""Which of several animals called: the probability of each, and when it is clear.

Every animal's keypoints are where its track says; the one that called is where the model's density says. With
p(x_a) the density at animal a the probability of it is p(x_a) over the sum of all. Two things make this true
of real data. Densities are wrong in their tails, where the other animal is: a share of the calls, spread
evenly over the arena, and a power of the density are fitted to calls whose place is known. And a caller is
named only where it is so far ahead that of the named ones at most the stated share are wrong.

Both are fitted without recordings of several animals: beside each call of known place another animal is put,
at each of several distances and in a direction at random. From which odds on the error rate is kept is found
for each distance by itself, so that it holds however near to each other the animals of a recording
are. The threshold is the lowest one of which this is sure (Angelopoulos et al. 2021, Learn then Test,
arXiv:2110.01052, with thresholds tried from the highest on). Of more than two animals the one named must be
clear of each other one at an error rate divided among them.

Letters: N events, A animals, K keypoints, D axes, S separations.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from gerbil_tune.errors import ConfigError
from gerbil_tune.evaluation.blocks import Floats, event_blocks
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.caller_rule import CallerRule
from gerbil_tune.models.density import LocationDensity

NOBODY = -1
"""Emitter of a call whose caller is not clear."""
CONFIDENCE = 0.95
"""How sure it is that an error rate is kept."""
ERROR_RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
FEWEST_EVENTS = 100
_MOST_EVENTS = 5000
_EDGES_MM = (10, 15, 19, 24, 30, 37, 46, 58, 72, 90, 112, 140, 175, 220, 275)
"""Each separation is looked at where it begins: there the animals are hardest to tell apart."""
_DIRECTIONS = 32
"""Tried in turn until the other animal is in the arena."""
_BACKGROUNDS = (0.0, 1e-4, 1e-3, 0.003, 0.01, 0.03, 0.1)
_POWERS = (0.2, 0.3, 0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0)
_NEVER = math.inf


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
        log_uniform: From ``log_uniform_density``.
        power: Of the density.
        background: Share of calls that are anywhere.
    """
    weights_NA = _log_weights(log_densities_NA, log_uniform, power=power, background=background)
    weights_NA = np.exp(weights_NA - weights_NA.max(axis=1, keepdims=True))
    probabilities_NA: Floats = weights_NA / weights_NA.sum(axis=1, keepdims=True)
    return probabilities_NA


def _log_weights(
    log_densities_NA: Floats, log_uniform: float, *, power: float, background: float
) -> Floats:
    """Log of what the probabilities of animals are proportional to; 0 is the uniform density."""
    seen_NA = np.isfinite(log_densities_NA)
    relative_NA = np.where(seen_NA, log_densities_NA - log_uniform, 0.0)
    stated_NA = power * relative_NA + math.log1p(-background)
    mixed_NA = np.logaddexp(stated_NA, math.log(background)) if background > 0 else stated_NA
    return np.where(seen_NA, mixed_NA, 0.0)


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


def log_uniform_of(setup: RecordingSetup) -> float:
    """``log_uniform_density`` of a recording site."""
    return log_uniform_density(setup.arena_mm, len(setup.keypoints), setup.num_axes)


def fit_caller_rule(
    density: LocationDensity, truth_mm_NKD: NDArray[np.floating], setup: RecordingSetup
) -> CallerRule | None:
    """Find when a caller is clear, from calls of known place beside which another animal is put.

    Args:
        density: Calibrated, of N events that were not trained on; at most 5,000 of them, evenly spaced, are
            used.
        truth_mm_NKD: True locations, (N, K, D) mm.
        setup: The recording site.

    Returns:
        The rule; None with fewer than 100 events.
    """
    num_events = min(len(truth_mm_NKD), _MOST_EVENTS)
    if num_events < FEWEST_EVENTS:
        return None
    chosen_N = np.linspace(0, len(truth_mm_NKD) - 1, num_events).round().astype(np.int64)
    density = density.rows(torch.from_numpy(chosen_N).to(density.means_mm_BKMD.device))
    truth_NKD = np.asarray(truth_mm_NKD[chosen_N], np.float64)
    half_diagonal_mm = math.hypot(*setup.arena_mm[:2]) / 2
    edges_mm = tuple(float(edge) for edge in _EDGES_MM if edge < half_diagonal_mm)
    rivals = _rivals(truth_NKD, (0.0, *edges_mm), setup)
    anywhere_NKD = truth_NKD[np.random.default_rng(1).permutation(num_events)]
    found_NA = log_densities_at_animals(
        density, np.stack([truth_NKD, anywhere_NKD, *rivals], axis=1)
    )
    caller_N, anywhere_N, *rivals_N = found_NA.T
    unseen_N = np.full(num_events, np.nan)
    pairs = [np.stack([caller_N, rival_N], axis=1)[np.isfinite(rival_N)] for rival_N in rivals_N]
    one_unseen = [np.stack(pair, axis=1) for pair in ((caller_N, unseen_N), (unseen_N, anywhere_N))]
    log_uniform = log_uniform_of(setup)
    power, background = _fit_density(pairs, log_uniform)
    columns = [
        _Ordered(_ahead(pair_N2, log_uniform, power, background))
        for pair_N2 in (*pairs, np.concatenate(one_unseen))
    ]
    thresholds = tuple(tuple(column.threshold(rate) for column in columns) for rate in ERROR_RATES)
    return CallerRule(power, background, edges_mm, ERROR_RATES, thresholds, num_events)


def assign(
    log_densities_NA: Floats,
    tracks_mm_NAKD: NDArray[np.floating],
    log_uniform: float,
    rule: CallerRule,
    error_rate: float,
) -> tuple[Floats, NDArray[np.int64]]:
    """Name the caller of each event where it is clear.

    Args:
        log_densities_NA: From ``log_densities_at_animals``.
        tracks_mm_NAKD: Where the animals were, as given to it.
        log_uniform: From ``log_uniform_of``.
        rule: Of the model.
        error_rate: Share of wrong ones among those that are named, at most.

    Returns:
        Probability of each animal (N, A), and the caller (N,), ``NOBODY`` where none is clear.
    """
    options = {"power": rule.power, "background": rule.background}
    weights_NA = _log_weights(log_densities_NA, log_uniform, **options)
    callers_N = weights_NA.argmax(axis=1)
    rows = np.arange(len(callers_N))
    centres_NAD = np.asarray(tracks_mm_NAKD, np.float64).mean(axis=2)
    apart_NA = np.linalg.norm(centres_NAD - centres_NAD[rows, callers_N][:, None], axis=-1)
    separation_NA = np.searchsorted(rule.edges_mm, apart_NA, side="right")
    num_rivals = max(1, weights_NA.shape[1] - 1)
    thresholds_S = np.asarray(_row(rule, error_rate / num_rivals))
    separation_NA[np.isnan(apart_NA)] = len(thresholds_S) - 1
    ahead_NA = weights_NA[rows, callers_N][:, None] - weights_NA
    # Two that were not seen are alike, whatever the threshold.
    is_clear_NA = (ahead_NA >= thresholds_S[separation_NA]) & (ahead_NA > 0)
    is_clear_NA[rows, callers_N] = True
    callers_N[~is_clear_NA.all(axis=1)] = NOBODY
    probabilities_NA = caller_probabilities(log_densities_NA, log_uniform, **options)
    return probabilities_NA, callers_N


def promised_error_rate(rule: CallerRule, error_rate: float, num_animals: int) -> float | None:
    """The error rate that is kept where this one is asked for; None where nobody can be named at it."""
    rivals = max(1, num_animals - 1)
    kept = [
        rate * rivals
        for rate, row in zip(rule.error_rates, rule.thresholds, strict=True)
        if rate <= error_rate / rivals * (1 + 1e-9) and min(row) < _NEVER
    ]
    return max(kept, default=None)


def _row(rule: CallerRule, error_rate: float) -> tuple[float, ...]:
    """Thresholds of the largest error rate that is not above this one."""
    number = np.searchsorted(rule.error_rates, error_rate * (1 + 1e-9), side="right") - 1
    return rule.thresholds[number] if number >= 0 else (_NEVER,) * (len(rule.edges_mm) + 2)


def _rivals(
    truth_NKD: Floats, distances_mm: tuple[float, ...], setup: RecordingSetup
) -> list[Floats]:
    """Other animals in the arena, at each of some distances from the callers; (N, K, D) each.

    They have the posture of other events. NaN where no direction that was tried leads into the arena.
    """
    generator = np.random.default_rng(0)
    num_events, _, num_axes = truth_NKD.shape
    half_widths = np.asarray(setup.arena_mm[:2]) / 2
    centre_ND = truth_NKD.mean(axis=1)
    rivals = []
    for distance_mm in distances_mm:
        angle_NT = generator.uniform(0, 2 * math.pi, (num_events, _DIRECTIONS))
        offset_NT2 = distance_mm * np.stack([np.cos(angle_NT), np.sin(angle_NT)], axis=-1)
        place_NT2 = centre_ND[:, None, :2] + offset_NT2
        is_inside_NT = (np.abs(place_NT2) <= half_widths).all(axis=-1)
        first_N = is_inside_NT.argmax(axis=1)
        rows = np.arange(num_events)
        posture_NKD = truth_NKD[generator.permutation(num_events)]
        posture_NKD = posture_NKD - posture_NKD.mean(axis=1, keepdims=True)
        new_ND = centre_ND.copy()
        new_ND[:, :2] = place_NT2[rows, first_N]
        new_ND[~is_inside_NT.any(axis=1)] = np.nan
        if num_axes == 3:  # apart in the plane, and as high as some other animal was
            new_ND[:, 2] = centre_ND[generator.permutation(num_events), 2]
        rivals.append(posture_NKD + new_ND[:, None])
    return rivals


def _fit_density(pairs: Sequence[Floats], log_uniform: float) -> tuple[float, float]:
    """Power and background of the highest likelihood of the callers, all separations counting alike."""
    best = (-math.inf, 1.0, 0.0)
    for power in _POWERS:
        for background in _BACKGROUNDS:
            likelihoods = [
                -np.logaddexp(0.0, -_ahead(pair_N2, log_uniform, power, background)).mean()
                for pair_N2 in pairs
                if len(pair_N2)
            ]
            best = max(best, (float(np.mean(likelihoods)), power, background))
    return best[1], best[2]


def _ahead(pairs_N2: Floats, log_uniform: float, power: float, background: float) -> Floats:
    """Log odds of the caller against the other animal, (N,), of log densities of both."""
    weights_N2 = _log_weights(pairs_N2, log_uniform, power=power, background=background)
    ahead_N: Floats = weights_N2[:, 0] - weights_N2[:, 1]
    return ahead_N


class _Ordered:
    """Pairs of animals by how clear they are, and how often the wrong one is ahead."""

    def __init__(self, ahead_N: Floats) -> None:
        """Take the log odds of the callers."""
        order_N = np.argsort(-np.abs(ahead_N), kind="stable")
        self._ordered_N = np.abs(ahead_N)[order_N]
        self._wrong_N = np.cumsum(ahead_N[order_N] <= 0)

    def threshold(self, error_rate: float) -> float:
        """Lowest log odds from which on an error rate is kept for sure; infinite: there are none.

        Thresholds are tried from the highest on, and the first that cannot be trusted ends it: so no
        correction is due for having tried many.
        """
        from scipy.stats import beta

        counts_N = np.arange(1, len(self._ordered_N) + 1)
        # Upper end of the exact binomial interval (Clopper & Pearson 1934).
        right_N = np.maximum(counts_N - self._wrong_N, 1e-9)
        upper_N = beta.ppf(CONFIDENCE, self._wrong_N + 1, right_N)
        # The first few can prove nothing: even without an error their interval is wide.
        fewest = math.ceil(math.log(1 - CONFIDENCE) / math.log(1 - error_rate))
        is_last_of_ties_N = np.append(self._ordered_N[:-1] != self._ordered_N[1:], True)
        tried = np.flatnonzero(is_last_of_ties_N & (counts_N >= fewest))
        failed = np.flatnonzero(upper_N[tried] > error_rate)
        kept = tried[: failed[0]] if len(failed) else tried
        return float(self._ordered_N[kept[-1]]) if len(kept) else _NEVER
