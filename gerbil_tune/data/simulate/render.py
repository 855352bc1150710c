"""The recording of one event: image-source impulse responses, convolution, noise.

Simplifications: a box with flat surfaces, an omnidirectional source and microphones, absorption that does not
depend on frequency, and no absorption by the air.

C microphones, T samples, I image sources.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from pyroomacoustics import libroom

from gerbil_tune.data.simulate.calls import synthesize_call
from gerbil_tune.data.simulate.plan import EventPlan, event_generator, plan_event
from gerbil_tune.data.simulate.rooms import Room, SimulationSpec
from gerbil_tune.data.simulate.wavs import WavCalls, read_wav
from gerbil_tune.units import SPEED_OF_SOUND_M_S

Audio = NDArray[np.float32]

FILTER_TAPS = 81
"""Length of a fractional delay, pyroomacoustics' default; a response starts half of it early."""
_TABLE_STEPS = 20
_NEAREST_M = 0.01
"""Mouths and microphones have a size: the 1/r law ends here."""
_PINK_FROM_HZ = 500.0
"""Coloured noise is flat below."""


@dataclass(frozen=True)
class ImpulseResponses:
    """What each microphone hears of an impulse.

    Attributes:
        taps_CT: (C, T) float32; sample ``FILTER_TAPS // 2`` is the moment of the impulse.
        first_arrival: Samples until the nearest microphone hears it.
    """

    taps_CT: Audio
    first_arrival: int


@functools.lru_cache(maxsize=4)
def _image_cells(order: int) -> NDArray[np.int64]:
    """(I, 3) mirrored rooms within ``order`` reflections, as indices 0..2*order an axis."""
    axis = np.arange(-order, order + 1)
    cells = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    near: NDArray[np.int64] = cells[np.abs(cells).sum(axis=1) <= order] + order
    near.flags.writeable = False
    return near


def impulse_responses(
    room: Room, source_mm: tuple[float, float, float], absorption_scale: float = 1.0
) -> ImpulseResponses:
    """Impulse responses of a box by the image-source method (Allen and Berkley 1979, JASA 65:943).

    The images of a box separate by axis, so they come from three short tables; pyroomacoustics' compiled
    builder then places all delayed impulses of all microphones in one call. A whole ``pyroomacoustics.Room``
    an event costs several times as much.

    Args:
        room: The room; its corner is pyroomacoustics' origin.
        source_mm: (x, y, z) in the file's frame: x and y from the centre, z from the floor.
        absorption_scale: Factor on all absorptions; a product above 1 counts as 1.
    """
    order = room.image_order
    size_m = np.array(room.size_mm) / 1000
    to_corner_m = np.array([size_m[0] / 2, size_m[1] / 2, 0.0])
    source_m = np.array(source_mm) / 1000 + to_corner_m
    microphones_m = np.array(room.microphones_mm) / 1000 + to_corner_m
    cells, cell = _image_cells(order), np.arange(-order, order + 1)
    gain = np.ones(len(cells))
    squared_m2 = np.zeros((len(microphones_m), len(cells)))
    for axis, (low, high) in enumerate(_reflection_factors(room, absorption_scale)):
        low_hits = np.where(cell > 0, cell // 2, (1 - cell) // 2)
        gain *= (low**low_hits * high ** (np.abs(cell) - low_hits))[cells[:, axis]]
        within = np.where(cell % 2 == 0, source_m[axis], size_m[axis] - source_m[axis])
        offset_m = cell * size_m[axis] + within - microphones_m[:, axis, None]
        squared_m2 += (offset_m**2)[:, cells[:, axis]]
    heard = gain > 0
    distance_m = np.sqrt(squared_m2[:, heard])
    delays = distance_m * (room.sample_rate_hz / SPEED_OF_SOUND_M_S)
    amplitudes = gain[heard] / np.maximum(distance_m, _NEAREST_M)
    return ImpulseResponses(_place(delays, amplitudes), int(delays.min()))


def _reflection_factors(room: Room, absorption_scale: float) -> tuple[tuple[float, float], ...]:
    """What a reflection leaves of the pressure, for each axis at its low and its high end."""
    walls, floor, ceiling = (
        math.sqrt(1 - min(1.0, energy_part * absorption_scale))
        for energy_part in (room.absorption.walls, room.absorption.floor, room.absorption.ceiling)
    )
    return ((walls, walls), (walls, walls), (floor, ceiling))


def _place(delays: NDArray[np.float64], amplitudes: NDArray[np.float64]) -> Audio:
    """Sum band-limited impulses: (C, I) delays in samples and amplitudes to (C, T) taps."""
    num_microphones = len(delays)
    length = int(delays.max()) + FILTER_TAPS + 2
    # One row after the other in one buffer: the builder starts its threads once an event, not C times.
    # With a rate of one its times are samples; its own rate would have to be a whole number of hertz.
    rows = np.arange(num_microphones)[:, None] * length
    taps = np.zeros(num_microphones * length)
    times = (delays + FILTER_TAPS // 2 + rows).ravel()
    libroom.rir_builder(taps, times, amplitudes.ravel(), 1, FILTER_TAPS, _TABLE_STEPS, 1)
    return taps.reshape(num_microphones, length).astype(np.float32)


def clean_recording(call: Audio, responses: ImpulseResponses, plan: EventPlan) -> Audio:
    """What the microphones would record without noise.

    Args:
        call: (call_samples,) float32 at the source.
        responses: From the source to each microphone.
        plan: Where the call lies in the recording, and its peak.

    Returns:
        (C, T) float32 whose largest absolute value is ``plan.peak_amplitude``.
    """
    taps = responses.taps_CT
    length = int(scipy.fft.next_fast_len(len(call) + taps.shape[1] - 1, real=True))
    spectrum = scipy.fft.rfft(taps, length)
    spectrum *= scipy.fft.rfft(call, length)
    heard: Audio = scipy.fft.irfft(spectrum, length)
    heard = heard[:, FILTER_TAPS // 2 : len(call) + taps.shape[1] - 1]
    recording = np.zeros((len(taps), plan.num_samples), np.float32)
    kept = min(heard.shape[1], plan.num_samples - plan.call_start)
    recording[:, plan.call_start : plan.call_start + kept] = heard[:, :kept]
    recording *= np.float32(plan.peak_amplitude / np.abs(recording).max())
    return recording


def background_noise(
    rng: np.random.Generator,
    num_microphones: int,
    num_samples: int,
    sample_rate_hz: float,
    exponent: float,
) -> Audio:
    """Gaussian noise, independent between microphones.

    Args:
        rng: Where it comes from.
        num_microphones: Rows.
        num_samples: Columns.
        sample_rate_hz: Samples a second.
        exponent: The power spectrum falls as 1/f**exponent above 500 Hz and is flat below.

    Returns:
        (C, T) float32 of arbitrary scale.
    """
    if exponent == 0:
        return rng.standard_normal((num_microphones, num_samples), dtype=np.float32)
    length = int(scipy.fft.next_fast_len(num_samples, real=True))
    frequency_hz = np.maximum(scipy.fft.rfftfreq(length, 1 / sample_rate_hz), _PINK_FROM_HZ)
    amplitude = ((frequency_hz / _PINK_FROM_HZ) ** (-exponent / 2)).astype(np.float32)
    parts = rng.standard_normal((num_microphones, 2 * len(amplitude)), dtype=np.float32)
    spectrum = parts.view(np.complex64)
    spectrum *= amplitude
    noise: Audio = scipy.fft.irfft(spectrum, length)
    return noise[:, :num_samples]


def scale_noise(noise: Audio, clean: Audio, start: int, stop: int, snr_db: float) -> Audio:
    """Scale noise to a signal-to-noise ratio.

    The ratio is that of the mean powers over the samples ``start`` to ``stop`` and all microphones.

    Args:
        noise: (C, T).
        clean: (C, T).
        start: First sample of the call as the nearest microphone hears it.
        stop: One past its last.
        snr_db: The ratio in dB.
    """
    signal_power = np.mean(np.square(clean[:, start:stop]), dtype=np.float64)
    noise_power = np.mean(np.square(noise[:, start:stop]), dtype=np.float64)
    return noise * np.float32(math.sqrt(signal_power / noise_power) * 10 ** (-snr_db / 20))


def render_event(
    spec: SimulationSpec, wavs: WavCalls | None, seed: int, event: int
) -> tuple[Audio, EventPlan]:
    """Record one event.

    Args:
        spec: The room and the ranges.
        wavs: The recorded calls, if ``spec.wavs`` asks for them.
        seed: Of the whole simulation.
        event: Its number.

    Returns:
        (T, C) float32 audio, and the plan that it follows.
    """
    rng = event_generator(seed, event)
    plan = plan_event(spec, wavs, rng)
    room = spec.room
    if wavs is None or plan.wav_index is None:
        call = synthesize_call(rng, plan.call_samples, room.sample_rate_hz, spec.fundamental_hz)
    else:
        call = read_wav(wavs.paths[plan.wav_index], room.sample_rate_hz)
    source_mm = (*plan.keypoints_mm[0], plan.source_height_mm)
    responses = impulse_responses(room, source_mm, plan.absorption_scale)
    clean = clean_recording(call, responses, plan)
    num_microphones, num_samples = clean.shape
    noise = background_noise(
        rng, num_microphones, num_samples, room.sample_rate_hz, plan.noise_exponent
    )
    start = plan.call_start + responses.first_arrival
    noise = scale_noise(noise, clean, start, start + plan.call_samples, plan.snr_db)
    return np.ascontiguousarray((clean + noise).T), plan
