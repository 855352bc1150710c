"""Physics: delays, reflections, frame, signal-to-noise ratio, noise and calls."""

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pyroomacoustics
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gerbil_tune.data.simulate import PRESETS, make_spec
from gerbil_tune.data.simulate.calls import synthesize_call
from gerbil_tune.data.simulate.plan import event_generator, plan_event
from gerbil_tune.data.simulate.render import (
    FILTER_TAPS,
    background_noise,
    clean_recording,
    impulse_responses,
    render_event,
    scale_noise,
)
from gerbil_tune.data.simulate.rooms import Absorption, Room
from gerbil_tune.geometry import RecordingSetup, mirror_permutation
from gerbil_tune.units import SPEED_OF_SOUND_M_S, distance_to_delay_s

E1 = PRESETS["e1"]
ANECHOIC = E1.model_copy(update={"absorption": Absorption(walls=1.0, floor=1.0, ceiling=1.0)})
HALF_TAPS = FILTER_TAPS // 2


@pytest.fixture
def no_high_pass() -> Iterator[None]:
    """Pyroomacoustics' rooms filter their responses above 10 Hz; the reference must not."""
    before = pyroomacoustics.constants.get("rir_hpf_enable")
    pyroomacoustics.constants.set("rir_hpf_enable", False)
    yield
    pyroomacoustics.constants.set("rir_hpf_enable", before)


@pytest.mark.usefixtures("no_high_pass")
def test_responses_are_those_of_a_pyroomacoustics_room() -> None:
    room = E1.model_copy(update={"image_order": 4})
    source_mm = (123.4, -56.7, 40.0)
    surfaces = dict.fromkeys(("east", "west", "north", "south"), room.absorption.walls)
    surfaces |= {"floor": room.absorption.floor, "ceiling": room.absorption.ceiling}
    reference = pyroomacoustics.ShoeBox(
        [width / 1000 for width in room.size_mm],
        fs=int(room.sample_rate_hz),
        max_order=room.image_order,
        materials={name: pyroomacoustics.Material(part) for name, part in surfaces.items()},
    )
    reference.set_sound_speed(SPEED_OF_SOUND_M_S)
    corner_mm = np.array([room.size_mm[0] / 2, room.size_mm[1] / 2, 0.0])
    reference.add_source((np.array(source_mm) + corner_mm) / 1000)
    reference.add_microphone_array(((np.array(room.microphones_mm) + corner_mm) / 1000).T)
    reference.compute_rir()
    taps_CT = impulse_responses(room, source_mm).taps_CT
    for ours, theirs in zip(taps_CT, reference.rir, strict=True):
        shared = min(len(ours), len(theirs[0]))
        np.testing.assert_allclose(ours[:shared], theirs[0][:shared], atol=2e-3 * ours.max())
        assert not np.any(np.abs(ours[shared:]) > 1e-6)


@pytest.mark.parametrize(
    "source_mm", [(0.0, 0.0, 40.0), (200.0, -100.0, 20.0), (-150.0, 80.0, 60.0)]
)
def test_direct_sound_arrives_with_the_delays_of_the_geometry(
    source_mm: tuple[float, float, float],
) -> None:
    spec = make_spec(ANECHOIC)
    plan = plan_event(spec, None, event_generator(0, 0))
    call = np.random.default_rng(0).standard_normal(plan.call_samples).astype(np.float32)
    responses = impulse_responses(ANECHOIC, source_mm)
    audio_CT = clean_recording(call, responses, plan).astype(np.float64)
    delays = [
        distance_to_delay_s(math.dist(source_mm, microphone)) * E1.sample_rate_hz
        for microphone in E1.microphones_mm
    ]
    assert responses.first_arrival == int(min(delays))
    size = 2 * audio_CT.shape[1]
    spectra = np.fft.rfft(audio_CT, size)
    for first, second in itertools.combinations(range(len(delays)), 2):
        correlation = np.fft.irfft(spectra[first] * spectra[second].conj())
        lag = int(np.argmax(correlation))
        lag = lag - size if lag > size // 2 else lag
        assert abs(lag - (delays[first] - delays[second])) <= 1
    # Amplitudes fall with 1/r.
    peaks = np.sqrt((audio_CT**2).sum(axis=1)) * np.array(delays)
    np.testing.assert_allclose(peaks, peaks[0], rtol=0.01)


def test_an_anechoic_response_is_one_delayed_impulse() -> None:
    # 343.2 m/s and 125 kHz: 100 samples are 274.56 mm.
    room = Room(
        size_mm=(1000.0, 1000.0, 1000.0),
        sample_rate_hz=125_000.0,
        microphones_mm=((0.0, 0.0, 500.0), (274.56, 0.0, 500.0)),
        absorption=Absorption(walls=1.0, floor=1.0, ceiling=1.0),
    )
    responses = impulse_responses(room, (0.0, 0.0, 500.0 - 274.56))
    assert responses.first_arrival == 100
    expected = np.zeros(responses.taps_CT.shape[1])
    expected[HALF_TAPS + 100] = 1 / 0.27456
    np.testing.assert_allclose(responses.taps_CT[0], expected, atol=1e-4)


@pytest.mark.parametrize("name", ["e1", "e2", "e3"])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_mirrored_source_is_heard_by_the_mirrored_microphones(name: str, axis: int) -> None:
    room = PRESETS[name]
    setup = RecordingSetup(len(room.microphones_mm), 1.0, room.size_mm, room.microphones_mm)
    order = mirror_permutation(setup, axis)
    assert order is not None
    mirrored = [101.0, -47.0, 33.0]
    mirrored[axis] *= -1
    ours = impulse_responses(room, (101.0, -47.0, 33.0)).taps_CT
    theirs = impulse_responses(room, (mirrored[0], mirrored[1], 33.0)).taps_CT[list(order)]
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * ours.max())


def test_e1_is_reverberant_and_less_so_with_more_absorption() -> None:
    source_mm = (50.0, 30.0, 40.0)
    energies = [
        float((impulse_responses(E1, source_mm, scale).taps_CT ** 2).sum())
        for scale in (0.5, 1.0, 2.0)
    ]
    direct = float((impulse_responses(ANECHOIC, source_mm).taps_CT ** 2).sum())
    assert energies[0] > energies[1] > energies[2] > direct
    assert energies[1] > 5 * direct


@given(snr_db=st.floats(-20, 60), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_noise_is_scaled_to_the_ratio_of_mean_powers(snr_db: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    clean = rng.standard_normal((4, 500)).astype(np.float32) * rng.uniform(0.1, 2, (4, 1))
    start, stop = 100, 350
    noise = scale_noise(rng.standard_normal((4, 500)), clean, start, stop, snr_db)
    power = (clean[:, start:stop] ** 2).mean() / (noise[:, start:stop] ** 2).mean()
    assert 10 * math.log10(power) == pytest.approx(snr_db, abs=1e-3)


def test_an_event_has_its_signal_to_noise_ratio() -> None:
    """Once more from the outside: the noise is what the same event has less of at a higher ratio."""
    quiet, loud = (
        make_spec(E1, snr_db=(snr_db, snr_db), noise_exponent=(1.0, 1.0)) for snr_db in (200.0, 7.0)
    )
    for event in range(5):
        clean, plan = render_event(quiet, None, 3, event)
        noisy, _ = render_event(loud, None, 3, event)
        assert np.abs(clean).max() == pytest.approx(plan.peak_amplitude, rel=1e-4)
        assert 1e-3 <= plan.peak_amplitude <= 1e-2
        source_mm = (*plan.keypoints_mm[0], plan.source_height_mm)
        nearest_mm = min(math.dist(source_mm, microphone) for microphone in E1.microphones_mm)
        start = plan.call_start + int(distance_to_delay_s(nearest_mm) * E1.sample_rate_hz)
        heard = slice(start, start + plan.call_samples)
        power = (clean[heard] ** 2).mean() / ((noisy - clean)[heard] ** 2).mean()
        assert 10 * math.log10(power) == pytest.approx(7.0, abs=0.01)


@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_noise_has_its_colour_and_is_independent_between_microphones(exponent: float) -> None:
    rate_hz = 125e3
    noise = background_noise(np.random.default_rng(0), 4, 60_000, rate_hz, exponent)
    assert noise.dtype == np.float32
    power = (np.abs(np.fft.rfft(noise)) ** 2).mean(axis=0)
    frequency_hz = np.fft.rfftfreq(60_000, 1 / rate_hz)
    low, high = (
        power[(frequency_hz > centre_hz / 1.1) & (frequency_hz < centre_hz * 1.1)].mean()
        for centre_hz in (2000.0, 32_000.0)
    )
    assert low / high == pytest.approx(16.0**exponent, rel=0.15)
    correlation = np.corrcoef(noise)
    assert np.abs(correlation - np.eye(4)).max() < 0.05


@given(
    seed=st.integers(0, 10_000),
    num_samples=st.integers(16, 6000),
    rate_hz=st.sampled_from([30e3, 125e3, 250e3]),
)
@settings(max_examples=60, deadline=None)
def test_calls_are_finite_normalised_and_smooth_at_both_ends(
    seed: int, num_samples: int, rate_hz: float
) -> None:
    call = synthesize_call(np.random.default_rng(seed), num_samples, rate_hz, (2000.0, 45_000.0))
    assert call.shape == (num_samples,)
    assert call.dtype == np.float32
    assert np.isfinite(call).all()
    assert np.abs(call).max() == pytest.approx(1.0)
    assert abs(call[0]) < 1e-6
    assert abs(call[-1]) < 1e-6


@pytest.mark.parametrize("rate_hz", [30e3, 125e3, 250e3])
def test_calls_stay_within_their_band(rate_hz: float) -> None:
    inside = total = 0.0
    for seed in range(40):
        call = synthesize_call(np.random.default_rng(seed), 4096, rate_hz, (2000.0, 45_000.0))
        power = np.abs(np.fft.rfft(call)) ** 2
        frequency_hz = np.fft.rfftfreq(len(call), 1 / rate_hz)
        inside += power[(frequency_hz > 400) & (frequency_hz < 0.47 * rate_hz)].sum()
        total += power.sum()
    assert inside / total > 0.99
