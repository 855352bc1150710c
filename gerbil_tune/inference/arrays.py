"""Predictions of events that are in memory, as ``predict_events`` makes them of files.

Letters: B events, T samples, C microphones.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gerbil_tune.data.files.statistics import event_statistics
from gerbil_tune.errors import DatasetError
from gerbil_tune.evaluation.predictions import EventPredictions, describe
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.inference.flags import flagged, flags_of_audio
from gerbil_tune.models.bundle import TrainedModel

FloatArray = npt.NDArray[np.float32]

_EVENTS_AT_ONCE = 64
_RELATIVE_TOLERANCE = 1e-6


def predict_arrays(
    bundle: TrainedModel,
    audio: npt.NDArray[Any] | Sequence[npt.ArrayLike],
    *,
    lengths_B: Sequence[int] | None = None,
    sample_rate_hz: float | None = None,
) -> EventPredictions:
    """Predict events that are given as one padded array, or each as its own.

    Args:
        bundle: The model.
        audio: (B, T, C), or B arrays of (samples, C) of any lengths; full scale ±1. Events that are longer
            than the model takes are cut around their middle.
        lengths_B: Samples of each event of a padded array; None or empty: the zeros at the end of an event
            are padding.
        sample_rate_hz: Of the audio; None: that of the model.

    Returns:
        Predictions of the B events, at least one.

    Raises:
        DatasetError: If the microphones, the sample rate or the lengths do not fit.
    """
    setup = bundle.setup
    if sample_rate_hz is not None and not math.isclose(
        sample_rate_hz, setup.sample_rate_hz, rel_tol=_RELATIVE_TOLERANCE
    ):
        raise DatasetError(
            f"sample_rate_hz is {sample_rate_hz:g}, but the model is for {setup.sample_rate_hz:g}; resample "
            "the audio or use a model that was trained at its rate"
        )
    events = _events(audio, lengths_B, setup)
    parts = [
        _predict(bundle, events[first : first + _EVENTS_AT_ONCE])
        for first in range(0, len(events), _EVENTS_AT_ONCE)
    ]
    return EventPredictions.joined(parts)


def _events(
    audio: npt.NDArray[Any] | Sequence[npt.ArrayLike],
    lengths_B: Sequence[int] | None,
    setup: RecordingSetup,
) -> list[FloatArray]:
    """Each event without padding, (samples, C)."""
    events = [np.asarray(event, np.float32) for event in audio]
    if not events:
        raise DatasetError("there is no event in the audio; give at least one")
    for number, event in enumerate(events):
        if event.ndim != 2 or event.shape[1] != setup.num_microphones:
            raise DatasetError(
                f"event {number} has the shape {event.shape}, but the model takes (samples, "
                f"{setup.num_microphones}), a column for each of its {setup.num_microphones} microphones"
            )
    if lengths_B is None or len(lengths_B) == 0:
        is_padded = isinstance(audio, np.ndarray)
        return [event[: _sounding(event)] for event in events] if is_padded else events
    if len(lengths_B) != len(events):
        raise DatasetError(
            f"lengths has {len(lengths_B)} numbers, but there are {len(events)} events; give one for each"
        )
    for number, (event, length) in enumerate(zip(events, lengths_B, strict=True)):
        if not 0 <= length <= len(event):
            raise DatasetError(
                f"lengths[{number}] is {length}, but event {number} has {len(event)} samples; give the "
                "samples of each event before its padding"
            )
    return [event[:length] for event, length in zip(events, lengths_B, strict=True)]


def _sounding(event_TC: FloatArray) -> int:
    """Samples up to the last one that is not silence."""
    sounding_T = np.any(event_TC != 0, axis=1)
    return len(event_TC) - int(np.argmax(sounding_T[::-1])) if sounding_T.any() else 0


def _predict(bundle: TrainedModel, events: Sequence[FloatArray]) -> EventPredictions:
    lengths_B = np.minimum([len(event) for event in events], bundle.crop_length)
    shape = len(events), max(1, int(lengths_B.max())), bundle.setup.num_microphones
    audio_BTC = np.zeros(shape, np.float32)
    statistics_B2C = np.zeros((len(events), 2, shape[2]), np.float32)
    for i, (event, length) in enumerate(zip(events, lengths_B, strict=True)):
        first = (len(event) - length) // 2
        audio_BTC[i, :length] = event[first : first + length]
        statistics_B2C[i] = event_statistics(event)
    audio, lengths = torch.from_numpy(audio_BTC), torch.from_numpy(lengths_B.astype(np.int64))
    full_lengths_B = np.array([len(event) for event in events])
    flags_B = flags_of_audio(audio, lengths, full_lengths_B)
    density = bundle.predict_batch(
        audio,
        lengths,
        torch.from_numpy(statistics_B2C[:, 0]),
        torch.from_numpy(statistics_B2C[:, 1]),
    )
    found = describe(density, bundle.calibration, bundle.setup)
    return flagged(replace(found, flags_N=flags_B), bundle.setup)
