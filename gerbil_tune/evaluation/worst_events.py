"""The events that a model got most wrong: what was said of them, and how they sound.

Letters: N events, K keypoints, D axes, C microphones, T samples, F frequencies, M columns.
"""

import io
import math
import shlex
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gerbil_tune.data.events import EventSet
from gerbil_tune.data.pictures.spectrograms import (
    centred,
    colour_range_db,
    spectrograms_db,
    window_length,
)
from gerbil_tune.data.pictures.thumbnails import palette
from gerbil_tune.evaluation.results import EvaluationResult

NUM_WORST = 12
WIDTH, HEIGHT = 360, 132
"""Of a spectrogram, in pixels."""
_MASS = 0.95


@dataclass(frozen=True, eq=False, slots=True)
class WorstEvent:
    """One event.

    Attributes:
        place: In the evaluated events, from 0.
        name: ``event 7 of calls.h5``, as the file counts.
        command: What shows all of it.
        error_mm: Mean over the keypoints.
        truth_mm_KD: True locations.
        predicted_mm_KD: Predicted ones.
        ellipse_mm2_K22: Covariance in x and y whose one-sigma ellipse is the border of the 95 % region, or
            None where no uncertainty is stated.
        length_ms: Of the event.
        snr_db: NaN where not known.
        group: Its session, or None.
        loudest: The microphone of which the spectrogram is.
    """

    place: int
    name: str
    command: str
    error_mm: float
    truth_mm_KD: NDArray[Any]
    predicted_mm_KD: NDArray[Any]
    ellipse_mm2_K22: NDArray[Any] | None
    length_ms: float
    snr_db: float
    group: int | None
    loudest: int


def worst_events(
    result: EvaluationResult,
    method_number: int,
    error_mm_N: NDArray[Any],
    events: EventSet,
    sample_rate_hz: float,
    snr_db_N: NDArray[Any],
    number: int = NUM_WORST,
) -> list[WorstEvent]:
    """Find the events with the largest errors of one method, the worst first.

    Args:
        result: The evaluation.
        method_number: Which of its methods.
        error_mm_N: Its errors.
        events: The N events.
        sample_rate_hz: Of the audio.
        snr_db_N: See ``event_snr``.
        number: How many at most.
    """
    method = result.methods[method_number]
    worst = np.argsort(-np.asarray(error_mm_N), kind="stable")[:number]
    groups = events.groups
    found = []
    for place in worst.tolist():
        file = events.files[int(events.file_numbers[place])]
        shown = ["gerbil-tune", "data", "show", str(file.path)]
        shown += ["--event", str(int(events.file_rows[place]))]
        found.append(
            WorstEvent(
                place=place,
                name=events.describe(place),
                command=shlex.join(shown),
                error_mm=float(error_mm_N[place]),
                truth_mm_KD=result.locations_mm_NKD[place],
                predicted_mm_KD=method.predictions_mm_NKD[place],
                ellipse_mm2_K22=_ellipse(
                    None
                    if method.covariance_mm2_NKDD is None
                    else method.covariance_mm2_NKDD[place],
                    None if method.region_size_95_NK is None else method.region_size_95_NK[place],
                ),
                length_ms=1000 * int(events.lengths[place]) / sample_rate_hz,
                snr_db=float(snr_db_N[place]),
                group=None if groups is None else int(groups[place]),
                loudest=_loudest(events.read(place)),
            )
        )
    return found


def _ellipse(
    covariance_mm2_KDD: NDArray[Any] | None, size_K: NDArray[Any] | None
) -> NDArray[Any] | None:
    """Shape of the covariance in x and y, of the area of the 95 % region.

    Without a finite area, and in three axes, it is the ellipse that holds 95 % of a Gaussian.
    """
    if covariance_mm2_KDD is None:
        return None
    covariance_K22 = np.asarray(covariance_mm2_KDD[:, :2, :2], np.float64)
    squared_radius_K = np.full(len(covariance_K22), -2 * math.log(1 - _MASS))
    if size_K is not None and covariance_mm2_KDD.shape[1] == 2:
        # The area of the ellipse up to a squared radius is pi times it times the root of the determinant.
        unit_K = np.pi * np.sqrt(np.maximum(np.linalg.det(covariance_K22), 0.0))
        is_known_K = np.isfinite(size_K) & (unit_K > 0)
        squared_radius_K[is_known_K] = size_K[is_known_K] / unit_K[is_known_K]
    scaled: NDArray[Any] = covariance_K22 * squared_radius_K[:, None, None]
    return scaled


def _loudest(audio_TC: NDArray[Any]) -> int:
    """The microphone with the most power beside its offset; the first where none has any."""
    if not len(audio_TC):
        return 0
    powers = [float(np.square(centred(channel), dtype=np.float64).mean()) for channel in audio_TC.T]
    return int(np.argmax(powers))


def spectrogram_png(audio_TC: NDArray[Any], microphone: int, sample_rate_hz: float) -> bytes:
    """The whole event at one microphone: time to the right, 0 to half the sample rate upwards.

    Args:
        audio_TC: The event, at least one sample.
        microphone: From 0.
        sample_rate_hz: Of the audio.
    """
    from PIL import Image

    window = window_length(sample_rate_hz, len(audio_TC))
    channel_T1 = audio_TC[:, microphone : microphone + 1]
    power_db_FM = spectrograms_db(channel_T1, window, WIDTH, HEIGHT)[0, ::-1]
    low_db, top_db = colour_range_db(power_db_FM)
    colours = palette()
    shares_FM = ((power_db_FM - low_db) / (top_db - low_db)).clip(0.0, 1.0)
    picture = Image.fromarray(np.round(shares_FM * (len(colours) - 1)).astype(np.uint8))
    picture.putpalette(colours.tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
