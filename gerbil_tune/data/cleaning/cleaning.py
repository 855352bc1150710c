"""Find the events that would spoil training or evaluation.

Legend: N events.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gerbil_tune.config.cleaning import CleaningConfig
from gerbil_tune.data.checks.audio_scan import scan_audio
from gerbil_tune.data.checks.findings import BoolArray
from gerbil_tune.data.checks.signal_to_noise import Frames
from gerbil_tune.data.cleaning.filters import FILTERS, EventFacts, FilterOutcome, duplicates
from gerbil_tune.data.events import EventSet
from gerbil_tune.data.progress import Advance
from gerbil_tune.errors import ConfigError
from gerbil_tune.geometry import RecordingSetup


@dataclass(frozen=True)
class CleaningResult:
    """What the filters found.

    Attributes:
        rows: int64 (N,), absolute place of each event that was looked at, as ``EventSet.rows``.
        outcomes: One for each filter that is on.
    """

    rows: npt.NDArray[np.int64]
    outcomes: tuple[FilterOutcome, ...]

    @cached_property
    def is_kept_N(self) -> BoolArray:
        """Whether no filter hit the event."""
        is_kept_N = np.ones(len(self.rows), dtype=np.bool_)
        for outcome in self.outcomes:
            is_kept_N &= ~outcome.is_hit_N
        return is_kept_N

    @property
    def kept(self) -> npt.NDArray[np.int64]:
        """Absolute places of the events that stay, int64, in the order of the set."""
        return self.rows[self.is_kept_N]

    @cached_property
    def reasons(self) -> dict[int, tuple[str, ...]]:
        """Names of the filters that hit an event, by its place in the set that was cleaned."""
        found: dict[int, list[str]] = {}
        for outcome in self.outcomes:
            for i in np.flatnonzero(outcome.is_hit_N).tolist():
                found.setdefault(i, []).append(outcome.name)
        return {i: tuple(names) for i, names in sorted(found.items())}

    @property
    def counts(self) -> dict[str, int]:
        """Events that each filter hit."""
        return {outcome.name: int(outcome.is_hit_N.sum()) for outcome in self.outcomes}

    @property
    def counts_alone(self) -> dict[str, int]:
        """Events that each filter hit and no other did."""
        alone = Counter(names[0] for names in self.reasons.values() if len(names) == 1)
        return {outcome.name: alone[outcome.name] for outcome in self.outcomes}

    def explain(self, i: int) -> tuple[str, ...]:
        """Why an event goes, by its place in the set: ``clipping: 2.1% of the samples of ...``."""
        return tuple(
            f"{outcome.name}: {outcome.details[i]}"
            for outcome in self.outcomes
            if i in outcome.details
        )


def clean_events(
    events: EventSet,
    setup: RecordingSetup,
    config: CleaningConfig,
    *,
    advance: Advance | None = None,
) -> CleaningResult:
    """Apply the filters; the audio is read once, by some threads, an event at a time.

    Args:
        events: The set, with the keypoints that ``setup`` names.
        setup: The recording site.
        config: The filters.
        advance: Told how many more events were read.

    Raises:
        ConfigError: If a filter that the config sets by name cannot be applied to these data.
    """
    frames = None
    if config.snr is not None and not events.is_impulse_response:
        num_samples = max(round(config.snr.frame_ms / 1000 * setup.sample_rate_hz), 1)
        frames = Frames(num_samples, config.snr.quiet_part)
    scan = scan_audio(events, frames=frames, advance=advance)
    facts = EventFacts(setup, events.locations_mm, scan)
    outcomes = [
        judge(facts, section)
        for name, judge in FILTERS.items()
        if (section := getattr(config, name)) is not None
    ]
    for outcome in outcomes:
        if outcome.skipped is not None and outcome.name in config.model_fields_set:
            raise ConfigError(
                f"{events.files[0].path}: the filter {outcome.name} cannot be applied: "
                f"{outcome.skipped}; leave it out, or switch it off with --set {outcome.name}=null"
            )
    result = CleaningResult(events.rows, tuple(outcomes))
    if config.duplicates is None:
        return result
    return CleaningResult(events.rows, (*outcomes, duplicates(facts, ~result.is_kept_N)))
