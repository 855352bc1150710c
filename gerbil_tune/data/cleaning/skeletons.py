"""Which skeletons are unlike the others: robust distances of the lengths between keypoints.

Legend: N events, K keypoints, D axes, P pairs of keypoints.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gerbil_tune.config.cleaning import SkeletonFilter

FloatArray = npt.NDArray[np.float64]
Pairs = tuple[tuple[int, int], ...]

MOST_PAIRS = 45
"""All pairs of 10 keypoints; where there are more, or few events, each keypoint's most rigid are used."""
_PAIRS_A_KEYPOINT = (3, 2, 1)
_MOST_TO_FIT = 5000
_FEWEST_TO_FIT = 20
_EVENTS_A_PAIR = 10
"""Rousseeuw and van Zomeren (1990) ask for 5 at least; the rate is kept from about 10 on."""
_HEAVIEST_TAIL = 6.0
"""Degrees of freedom of the heaviest tail that is believed."""
_LIGHT_TAIL = 1e9
_SHOULDERS = (0.8, 0.9, 0.95)
"""Quantiles whose ratio to the median tells how heavy the tail is; the heaviest answer counts."""
_ROUNDS = 10


@dataclass(frozen=True)
class SkeletonJudgement:
    """How usual each skeleton is.

    Attributes:
        distance_N: float64, robust distance from the usual skeleton, in standard deviations (Mahalanobis);
            NaN where a keypoint is not finite.
        limit: Distance that good events exceed at the rate asked for.
        pairs: The P pairs that were used.
        usual_P2_mm: float64, middle 95 % of the good lengths.
        worst_pair_N: int64, place of the pair that is most unusual by itself.
        lengths_NP_mm: float64.
        is_log: Whether the logarithms were taken.
    """

    distance_N: FloatArray
    limit: float
    pairs: Pairs
    usual_P2_mm: FloatArray
    worst_pair_N: npt.NDArray[np.int64]
    lengths_NP_mm: FloatArray
    is_log: bool


def fewest_events(num_keypoints: int) -> int:
    """Events from which on the usual skeleton can be learned: 10 a length, with one length a keypoint."""
    num_pairs = min(math.comb(num_keypoints, 2), num_keypoints)
    return max(_FEWEST_TO_FIT, _EVENTS_A_PAIR * num_pairs)


def pair_lengths_mm(locations_NKD: npt.NDArray[np.floating], pairs: Pairs) -> FloatArray:
    """Distances of pairs of keypoints, float64 (N, P); NaN for all pairs where a keypoint is not finite."""
    first, second = (list(side) for side in zip(*pairs, strict=True))
    is_known_N11 = np.isfinite(locations_NKD).all(axis=(1, 2), keepdims=True)
    known_NKD = np.where(is_known_N11, locations_NKD.astype(np.float64), np.nan)
    return np.asarray(np.linalg.norm(known_NKD[:, first] - known_NKD[:, second], axis=2))


def judge_skeletons(
    locations_NKD: npt.NDArray[np.floating], config: SkeletonFilter, *, seed: int = 0
) -> SkeletonJudgement:
    """Learn the usual skeleton and measure how far each one is from it.

    The lengths between keypoints do not depend on where the animal is or heads to. Their centre and
    covariance come from the minimum covariance determinant (Rousseeuw and Van Driessen 1999,
    Technometrics 41:212). Squared distances of a multivariate t divided by P follow F(P, v); v comes from
    the bulk of the events, so that postures with heavier tails than a Gaussian are not called errors, and the
    limit is the quantile of that F at ``false_positive_rate`` (of chi-squared / P where the tail is light).

    Args:
        locations_NKD: In mm; K >= 2 and at least ``fewest_events`` rows that are finite.
        config: Rate, scale, tracking error and support.
        seed: Of the events that the fit looks at, for more than 5000.
    """
    pairs: Pairs = tuple(itertools.combinations(range(locations_NKD.shape[1]), 2))
    is_good_N = np.isfinite(locations_NKD).all(axis=(1, 2))
    lengths_NP = pair_lengths_mm(locations_NKD, pairs)
    chosen = _choose_pairs(lengths_NP[is_good_N], pairs)
    pairs, lengths_NP = tuple(pairs[p] for p in chosen), lengths_NP[:, chosen]
    is_log = _chooses_log(lengths_NP[is_good_N], config)
    values_NP, error_P = _scale(lengths_NP, is_good_N, config.tracking_error_mm, is_log)
    # The error that a tracker would have made is added where the usual is learned: lengths of a rigid
    # skeleton have no covariance to invert, and more than 2K - 3 lengths in the plane depend on each other.
    learn_NP = _choose_rows(values_NP[is_good_N], seed)
    learn_NP += np.random.default_rng(seed).normal(size=learn_NP.shape) * error_P
    centre_P, covariance_PP = _fit(learn_NP, config.support_fraction, seed)
    precision_PP = np.linalg.inv(covariance_PP).astype(np.float64)
    bulk_N = _squared_distances(learn_NP - centre_P, precision_PP)
    limit2, scale = _limit(bulk_N, len(pairs), config.false_positive_rate)
    squared_N = _squared_distances(values_NP - centre_P, precision_PP)
    sd_P = np.sqrt(scale * np.diag(covariance_PP))
    usual_P2 = centre_P[:, None] + np.array([-2, 2]) * sd_P[:, None]
    unusual_NP = np.abs(values_NP - centre_P) / sd_P
    return SkeletonJudgement(
        distance_N=np.sqrt(squared_N / scale),
        limit=math.sqrt(limit2 / scale),
        pairs=pairs,
        usual_P2_mm=np.exp(usual_P2) if is_log else np.maximum(usual_P2, 0),
        worst_pair_N=np.where(is_good_N, np.nan_to_num(unusual_NP).argmax(axis=1), 0),
        lengths_NP_mm=lengths_NP,
        is_log=is_log,
    )


def _choose_pairs(lengths_NP: FloatArray, pairs: Pairs) -> list[int]:
    """Places of all pairs, or of each keypoint's pairs that vary least for their length."""
    most = len(lengths_NP) // _EVENTS_A_PAIR
    if len(pairs) <= min(MOST_PAIRS, most):
        return list(range(len(pairs)))
    low_P, middle_P, high_P = np.quantile(lengths_NP, (0.25, 0.5, 0.75), axis=0)
    spread_P = (high_P - low_P) / np.maximum(middle_P, 1e-9)
    by_rigidity = np.argsort(spread_P, kind="stable").tolist()
    chosen: set[int] = set()
    for number in _PAIRS_A_KEYPOINT:
        chosen = set()
        for k in {k for pair in pairs for k in pair}:
            chosen.update([place for place in by_rigidity if k in pairs[place]][:number])
        if len(chosen) <= most:
            break
    return sorted(chosen)


def _chooses_log(lengths_NP: FloatArray, config: SkeletonFilter) -> bool:
    """Whether logarithms are taken: octile skewness decides, which outliers do not reach."""
    if config.transform != "auto":
        return config.transform == "log"

    def skewness(values_NP: FloatArray) -> float:
        low_P, middle_P, high_P = np.quantile(values_NP, (0.125, 0.5, 0.875), axis=0)
        width_P = np.maximum(high_P - low_P, 1e-12)
        return float(np.abs((high_P - middle_P) - (middle_P - low_P)) @ (1 / width_P))

    logarithms_NP = np.log(np.maximum(lengths_NP, config.tracking_error_mm))
    return skewness(logarithms_NP) < skewness(lengths_NP)


def _scale(
    lengths_NP: FloatArray, is_good_N: npt.NDArray[np.bool_], error_mm: float, is_log: bool
) -> tuple[FloatArray, FloatArray]:
    """Lengths or their logarithms (N, P), and the tracking error on that scale (P,)."""
    if not is_log:
        return lengths_NP, np.full(lengths_NP.shape[1], error_mm)
    middle_P = np.median(lengths_NP[is_good_N], axis=0)
    return np.log(np.maximum(lengths_NP, error_mm)), error_mm / np.maximum(middle_P, error_mm)


def _choose_rows(values_NP: FloatArray, seed: int) -> FloatArray:
    """A copy of all rows, or of 5000 random ones."""
    if len(values_NP) <= _MOST_TO_FIT:
        return values_NP.copy()
    chosen = np.random.default_rng(seed).choice(len(values_NP), _MOST_TO_FIT, replace=False)
    return np.asarray(values_NP[np.sort(chosen)])


def _fit(
    values_NP: FloatArray, support_fraction: float, seed: int
) -> tuple[FloatArray, FloatArray]:
    """Robust centre (P,) and covariance (P, P)."""
    from sklearn.covariance import MinCovDet

    fit = MinCovDet(support_fraction=support_fraction, random_state=seed).fit(values_NP)
    return fit.location_, fit.covariance_


def _squared_distances(offsets_NP: FloatArray, precision_PP: FloatArray) -> FloatArray:
    return np.asarray(((offsets_NP @ precision_PP) * offsets_NP).sum(axis=1))


def _limit(squared_N: FloatArray, num_pairs: int, rate: float) -> tuple[float, float]:
    """Limit of squared distances at a false-positive rate, and the factor on their covariance.

    The limit of a light tail comes first. What exceeds a limit is left out when the bulk is looked at
    again, until nothing changes: from below, for outliers would make the tail look heavy.
    """
    from scipy.stats import f

    middle = float(np.median(squared_N))
    scale = max(middle / (num_pairs * _f_quantile(0.5, num_pairs, math.inf)), 1.0)
    limit = scale * num_pairs * float(f.isf(rate, num_pairs, _LIGHT_TAIL))
    for _ in range(_ROUNDS):
        middle, *shoulders = np.quantile(squared_N[squared_N <= limit], (0.5, *_SHOULDERS))
        freedom = min(
            _tail_freedom(shoulder / middle, part, num_pairs)
            for part, shoulder in zip(_SHOULDERS, shoulders, strict=True)
        )
        # Not below 1: that is the tracking error, where the skeleton is more rigid than it.
        scale = max(middle / (num_pairs * _f_quantile(0.5, num_pairs, freedom)), 1.0)
        tail = f.isf(rate, num_pairs, min(freedom, _LIGHT_TAIL))
        previous, limit = limit, scale * num_pairs * float(tail)
        if limit == previous:
            break
    return limit, scale


def _f_quantile(part: float, num_pairs: int, freedom: float) -> float:
    from scipy.stats import f

    return float(f.ppf(part, num_pairs, min(freedom, _LIGHT_TAIL)))


def _tail_freedom(ratio: float, part: float, num_pairs: int) -> float:
    """Degrees of freedom v of the F(P, v) with this ratio of a quantile to the median; inf: light tail."""
    from scipy.optimize import brentq

    def excess(inverse: float) -> float:
        freedom = 1 / inverse if inverse > 0 else math.inf
        quantile = _f_quantile(part, num_pairs, freedom)
        return quantile / _f_quantile(0.5, num_pairs, freedom) - ratio

    if excess(0.0) >= 0:
        return math.inf
    if excess(1 / _HEAVIEST_TAIL) <= 0:
        return _HEAVIEST_TAIL
    return 1 / float(brentq(excess, 0.0, 1 / _HEAVIEST_TAIL))
