"""What one event will be: every draw that precedes its sound.

The plan is cheap, so that the lengths of all events, and with them the layout of the file, are known before
any audio exists. The same generator then goes on to the call and the noise.
"""

import math
from dataclasses import dataclass

import numpy as np

from gerbil_tune.data.simulate.calls import draw_log_uniform
from gerbil_tune.data.simulate.rooms import SimulationSpec
from gerbil_tune.data.simulate.wavs import WavCalls
from gerbil_tune.units import distance_to_delay_s

_WALL_DISTANCE_MM = 8.0
_NOSE_TO_HEAD_MM = (15.0, 25.0)


@dataclass(frozen=True)
class EventPlan:
    """The draws of one event.

    Attributes:
        num_samples: Length of the recording.
        call_start: Sample at which the source starts to sound.
        call_samples: Length of the call at the source.
        wav_index: Which wav file sounds, or None for a synthetic call.
        keypoints_mm: (x, y) of the nose and perhaps the head.
        source_height_mm: z of the nose.
        snr_db: Mean power of the call over that of the noise.
        absorption_scale: Factor on the room's absorption.
        peak_amplitude: Largest absolute value of the noise-free recording.
        noise_exponent: 0 white to 1 pink.
    """

    num_samples: int
    call_start: int
    call_samples: int
    wav_index: int | None
    keypoints_mm: tuple[tuple[float, float], ...]
    source_height_mm: float
    snr_db: float
    absorption_scale: float
    peak_amplitude: float
    noise_exponent: float


def event_generator(seed: int, event: int) -> np.random.Generator:
    """The generator of one event, whichever process renders it and however many events there are."""
    return np.random.default_rng((seed, event))


def plan_event(spec: SimulationSpec, wavs: WavCalls | None, rng: np.random.Generator) -> EventPlan:
    """Draw everything about an event but its samples.

    Args:
        spec: The ranges.
        wavs: The recorded calls to choose from, or None for synthetic ones.
        rng: A fresh ``event_generator``; left where ``render_event`` goes on.
    """
    rate_hz = spec.room.sample_rate_hz
    if wavs is None:
        wav_index = None
        call_samples = max(16, round(draw_log_uniform(rng, *spec.duration_ms) * rate_hz / 1000))
    else:
        wav_index = int(rng.integers(len(wavs.paths)))
        call_samples = wavs.lengths[wav_index]
    before = round(rng.uniform(*spec.margin_before_ms) * rate_hz / 1000)
    travel = math.ceil(distance_to_delay_s(math.hypot(*spec.room.size_mm)) * rate_hz)
    after = travel + round(rng.uniform(*spec.margin_after_ms) * rate_hz / 1000)
    return EventPlan(
        num_samples=before + call_samples + after,
        call_start=before,
        call_samples=call_samples,
        wav_index=wav_index,
        keypoints_mm=draw_keypoints(spec, rng),
        source_height_mm=rng.uniform(*spec.source_height_mm),
        snr_db=rng.uniform(*spec.snr_db),
        absorption_scale=rng.uniform(*spec.absorption_scale),
        peak_amplitude=draw_log_uniform(rng, *spec.peak_amplitude),
        noise_exponent=rng.uniform(*spec.noise_exponent),
    )


def draw_keypoints(
    spec: SimulationSpec, rng: np.random.Generator
) -> tuple[tuple[float, float], ...]:
    """The nose, uniform over the arena, and on request the head behind it along a random heading."""
    half_x, half_y = (width / 2 - _WALL_DISTANCE_MM for width in spec.room.size_mm[:2])
    nose = (rng.uniform(-half_x, half_x), rng.uniform(-half_y, half_y))
    if spec.keypoints == 1:
        return (nose,)
    distance_mm = rng.uniform(*_NOSE_TO_HEAD_MM)
    while True:  # Even in a corner one heading in four fits.
        heading = rng.uniform(0, 2 * math.pi)
        head = (
            nose[0] - distance_mm * math.cos(heading),
            nose[1] - distance_mm * math.sin(heading),
        )
        if abs(head[0]) <= half_x and abs(head[1]) <= half_y:
            return (nose, head)
