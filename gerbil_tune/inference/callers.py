"""The animal that called, of several whose tracks are given: columns of a file of predictions.

Letters: N events, A animals, K keypoints, D axes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from gerbil_tune.data.events import EventSet
from gerbil_tune.data.files.animals import UNKNOWN
from gerbil_tune.evaluation.assignment import NOBODY, assign, log_uniform_of, promised_error_rate
from gerbil_tune.evaluation.predictions import EventPredictions
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.inference.locations import matching_tracks
from gerbil_tune.models.caller_rule import CallerRule

PROBABILITY, EMITTER, TRUE_EMITTER = "caller_probability", "emitter", "true_emitter"


@dataclass(frozen=True, eq=False, slots=True)
class CallerColumns:
    """Names callers, part by part.

    Attributes:
        tracks_mm_NAKD: Where the animals were during each event, of the model's keypoints and axes.
        names: Of the animals.
        rule: Of the model.
        log_uniform: See ``assignment.log_uniform_of``.
        error_rate: That was asked for.
        emitters_N: Who called where it is known, -1: unknown; or None.
    """

    tracks_mm_NAKD: npt.NDArray[np.float32]
    names: tuple[str, ...]
    rule: CallerRule
    log_uniform: float
    error_rate: float
    emitters_N: npt.NDArray[np.int64] | None

    def columns(self, start: int, predictions: EventPredictions) -> dict[str, npt.NDArray[Any]]:
        """Columns of the predictions of the events from ``start`` on; an event without one has no caller."""
        assert predictions.animal_log_density_NA is not None
        rows = slice(start, start + len(predictions))
        probabilities_NA, callers_N = assign(
            predictions.animal_log_density_NA.astype(np.float64),
            self.tracks_mm_NAKD[rows],
            self.log_uniform,
            self.rule,
            self.error_rate,
        )
        failed_N = np.isnan(predictions.mean_mm_NKD).any(axis=(1, 2))
        probabilities_NA[failed_N] = np.nan
        callers_N[failed_N] = NOBODY
        found: dict[str, npt.NDArray[Any]] = {
            PROBABILITY: probabilities_NA.astype(np.float32),
            EMITTER: callers_N.astype(np.int16),
        }
        if self.emitters_N is not None:
            found[TRUE_EMITTER] = self.emitters_N[rows].astype(np.int16)
        return found

    def attributes(self) -> dict[str, dict[str, Any]]:
        """Attributes of the columns, by their names."""
        names = list(self.names)
        promised = promised_error_rate(self.rule, self.error_rate, len(self.names))
        place = f"place of the animal in tracks; {NOBODY}"
        return {
            PROBABILITY: {"animals": names},
            EMITTER: {
                "animals": names,
                "meaning": f"{place}: none is convincing",
                "error_rate": self.error_rate if promised is None else promised,
            },
            TRUE_EMITTER: {"animals": names, "meaning": f"{place}: unknown"},
        }


def caller_columns(
    events: EventSet, setup: RecordingSetup, rule: CallerRule | None, error_rate: float
) -> CallerColumns | None:
    """What names the callers of events; None without tracks of the model's keypoints, or without a rule."""
    animals = events.animals
    tracks_mm_NAKD = matching_tracks(events, setup)
    if animals is None or tracks_mm_NAKD is None or rule is None:
        return None
    uniform = log_uniform_of(setup)
    return CallerColumns(tracks_mm_NAKD, animals.names, rule, uniform, error_rate, animals.emitters)


def remarks_on_tracks(
    events: EventSet, setup: RecordingSetup, rule: CallerRule | None, error_rate: float
) -> list[str]:
    """Why callers will not be named although there are tracks, one sentence each."""
    if events.animals is None:
        return []
    name = events.files[0].path.name
    if matching_tracks(events, setup) is None:
        return [
            f"the tracks of {name} are not used: they are of keypoints {', '.join(events.keypoints)} in "
            f"{events.animals.tracks_mm.shape[3]} axes, the model's of {', '.join(setup.keypoints)} in "
            f"{setup.num_axes}"
        ]
    if rule is None:
        return [
            f"the tracks of {name} are not used: the model does not know how sure it must be of a caller; "
            "train it again, or import it again with --data and 100 events with locations or more"
        ]
    if promised_error_rate(rule, error_rate, len(events.animals.names)) is None:
        lowest = rule.lowest_error_rate
        rivals = max(1, len(events.animals.names) - 1)
        advice = (
            "calibrate it on more"
            if lowest is None
            else f"ask for --error-rate {lowest * rivals:g} or more"
        )
        return [
            f"nobody will be named as the caller in {name}: an error rate of {error_rate:g} cannot be "
            f"promised of {len(events.animals.names)} animals from the {rule.num_events:,} events that the "
            f"model was calibrated on; {advice}"
        ]
    return []


@dataclass(frozen=True, slots=True)
class CallerCounts:
    """How many calls have an animal's name.

    Attributes:
        num_events: Calls with tracks.
        num_named: Of them with a name.
        num_checked: Of those with a name that are known.
        num_wrong: Of those the wrong ones.
    """

    num_events: int = 0
    num_named: int = 0
    num_checked: int = 0
    num_wrong: int = 0

    def sentence(self) -> str:
        """Say it."""
        share = self.num_named / max(1, self.num_events)
        text = f"named the caller of {self.num_named:,} of {self.num_events:,} events ({share:.1%})"
        if self.num_checked:
            wrong = self.num_wrong / self.num_checked
            text += f"; {wrong:.2%} of {self.num_checked:,} that are known are wrong"
        return text


def count_callers(paths: Sequence[Path]) -> CallerCounts | None:
    """Count the callers in files of predictions; None where none has any."""
    totals = np.zeros(4, np.int64)
    is_any = False
    for path in paths:
        with h5py.File(path, "r") as file:
            if EMITTER not in file:
                continue
            is_any = True
            named_N = file[EMITTER][:]
            known_N = (
                file[TRUE_EMITTER][:] if TRUE_EMITTER in file else np.full(len(named_N), UNKNOWN)
            )
        is_named_N = named_N != NOBODY
        is_checked_N = is_named_N & (known_N != UNKNOWN)
        is_wrong_N = is_checked_N & (named_N != known_N)
        counted = (is_named_N, is_checked_N, is_wrong_N)
        totals += [len(named_N), *(int(np.count_nonzero(each)) for each in counted)]
    return CallerCounts(*map(int, totals)) if is_any else None
