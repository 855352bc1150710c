"""Trial schedulers: which trials are stopped, paused, resumed or replaced, and when.

Each is a pure function of the trials' curves, so it decides after a restart as it would have before. Ray's
own schedulers keep such knowledge in the driver's memory, and stop where these pause.

Lower values are better throughout.
"""

import random
import statistics
from dataclasses import dataclass
from typing import Protocol

from gerbil_tune.config.study import (
    AshaConfig,
    MedianConfig,
    PopulationConfig,
    TrialSchedulerConfig,
)
from gerbil_tune.search.curves import Curves, TrialCurve


@dataclass(frozen=True)
class Verdict:
    """What happens to a trial after an epoch: it stops, pauses or, with neither, goes on."""

    stop: bool = False
    pause: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Step:
    """A paused trial goes on; or, with a donor, a copy of that one takes its place."""

    number: int
    donor: int | None = None


GO_ON = Verdict()


class TrialPolicy(Protocol):
    """A trial scheduler.

    Attributes:
        resumes_first: Whether paused trials go before new ones.
    """

    resumes_first: bool

    def after_epoch(self, trial: TrialCurve, epoch: int, curves: Curves) -> Verdict:
        """Decide about a trial that goes on otherwise; it is in ``curves``."""

    def next_step(self, curves: Curves, *, nothing_else: bool) -> Step | None:
        """Choose a paused trial; ``nothing_else``: no trial runs and none will begin."""


def make_policy(config: TrialSchedulerConfig, seed: int) -> TrialPolicy:
    """Build the trial scheduler of a study."""
    if isinstance(config, AshaConfig):
        return Promotion(config) if config.kind == "promotion-asha" else EarlyStopping(config)
    if isinstance(config, MedianConfig):
        return MedianRule(config)
    if isinstance(config, PopulationConfig):
        return Population(config, seed)
    return NoPolicy()


def rung_epochs(config: AshaConfig, epochs: int) -> tuple[int, ...]:
    """Epochs at which successive halving compares a trial of so many epochs; its last is none."""
    rungs = []
    rung = config.grace_epochs
    while rung < epochs:
        rungs.append(rung)
        rung *= config.reduction_factor
    return tuple(rungs)


class NoPolicy:
    """Every trial runs to its last epoch."""

    resumes_first = True

    def after_epoch(self, trial: TrialCurve, epoch: int, curves: Curves) -> Verdict:
        """It goes on."""
        return GO_ON

    def next_step(self, curves: Curves, *, nothing_else: bool) -> Step | None:
        """Go on with what another scheduler had paused."""
        paused = _paused(curves)
        return Step(paused[0].number) if paused else None


class EarlyStopping(NoPolicy):
    """Successive halving that stops (Li et al. 2020, section 3.2, as in their released code)."""

    def __init__(self, config: AshaConfig) -> None:
        self.config = config

    def after_epoch(self, trial: TrialCurve, epoch: int, curves: Curves) -> Verdict:
        """At a rung, stop what is not in its best 1/n; the best of few always goes on."""
        if epoch not in rung_epochs(self.config, trial.epochs):
            return GO_ON
        reached = sorted(curve.values[epoch] for curve in curves.values() if epoch in curve.values)
        limit = reached[max(1, len(reached) // self.config.reduction_factor) - 1]
        if trial.values[epoch] <= limit:
            return GO_ON
        best = f"the best {max(1, len(reached) // self.config.reduction_factor)} of {len(reached)}"
        return Verdict(stop=True, reason=f"not among {best} after {epoch} epochs")


class Promotion:
    """Successive halving that pauses and promotes (Li et al. 2020, algorithm 2).

    Nothing is thrown away: a trial waits at its rung, with its checkpoint, until it is among the best 1/n of
    those that have come as far. No trial goes on before n have.
    """

    resumes_first = True

    def __init__(self, config: AshaConfig) -> None:
        self.config = config

    def after_epoch(self, trial: TrialCurve, epoch: int, curves: Curves) -> Verdict:
        """Pause at every rung."""
        if epoch not in rung_epochs(self.config, trial.epochs):
            return GO_ON
        return Verdict(pause=True, reason=f"waits after {epoch} epochs for its promotion")

    def next_step(self, curves: Curves, *, nothing_else: bool) -> Step | None:
        """Promote from the highest rung that can spare one; at the very end, the one furthest on."""
        for rung in sorted({curve.paused_at for curve in _paused(curves)}, reverse=True):
            reached = sorted(
                (curve.values[rung], curve.number)
                for curve in curves.values()
                if rung in curve.values
            )
            for _, number in reached[: len(reached) // self.config.reduction_factor]:
                if curves[number].paused_at == rung and not curves[number].is_over:
                    return Step(number)
        if nothing_else and not _any_finished(curves):
            furthest = sorted(
                _paused(curves), key=lambda c: (-c.paused_at, c.values[c.paused_at], c.number)
            )
            return Step(furthest[0].number) if furthest else None
        return None


class MedianRule(NoPolicy):
    """Stops what is worse than the median (Golovin et al. 2017, section 3.2.2, without the averaging)."""

    def __init__(self, config: MedianConfig) -> None:
        self.config = config

    def after_epoch(self, trial: TrialCurve, epoch: int, curves: Curves) -> Verdict:
        """Stop a trial whose best value is above the median of the others at this epoch."""
        finished = sum(curve.is_over for curve in curves.values())
        others = [
            curve.values[epoch]
            for curve in curves.values()
            if epoch in curve.values and curve is not trial
        ]
        if epoch < self.config.grace_epochs or finished < self.config.startup_trials or not others:
            return GO_ON
        median = statistics.median(others)
        if min(trial.values.values()) <= median:
            return GO_ON
        reason = f"worse than the median of {len(others)} others after {epoch} epochs"
        return Verdict(stop=True, reason=reason)


class Population:
    """Population based training (Jaderberg et al. 2017), with members taking turns.

    All members begin before any goes on, and the one that is least far goes first, so that each is compared
    with the others at its own epoch however few run at a time.
    """

    resumes_first = False

    def __init__(self, config: PopulationConfig, seed: int) -> None:
        self.config = config
        self.seed = seed

    def after_epoch(self, trial: TrialCurve, epoch: int, curves: Curves) -> Verdict:
        """Pause after every interval."""
        if epoch % self.config.interval_epochs or epoch >= trial.epochs:
            return GO_ON
        return Verdict(pause=True, reason=f"waits after {epoch} epochs for the others")

    def next_step(self, curves: Curves, *, nothing_else: bool) -> Step | None:
        """Let the member that is least far go on, or a copy of a good one in its place."""
        paused = _paused(curves)
        if not paused:
            return None
        member = min(paused, key=lambda curve: (curve.paused_at, curve.number))
        epoch = member.paused_at
        ranked = sorted(
            (curve for curve in curves.values() if epoch in curve.values),
            key=lambda curve: (curve.values[epoch], curve.number),
        )
        size = int(len(ranked) * self.config.quantile)
        # A copy that was replaced or failed has no future; one that is complete has nothing to learn.
        donors = [c for c in ranked[:size] if not c.is_over and max(c.values) >= epoch]
        if size and member in ranked[-size:] and donors:
            rng = random.Random(f"{self.seed} {member.number} {epoch}")
            return Step(member.number, rng.choice(donors).number)
        return Step(member.number)


def _paused(curves: Curves) -> list[TrialCurve]:
    return [curve for curve in curves.values() if curve.paused_at and not curve.is_over]


def _any_finished(curves: Curves) -> bool:
    return any(curve.is_over and curve.epochs in curve.values for curve in curves.values())
