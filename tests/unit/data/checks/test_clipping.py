import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gerbil_tune.data.checks.audio_scan import scan_audio
from gerbil_tune.data.checks.clipping import check_clipping, find_clipped, find_clipped_share
from gerbil_tune.data.events import open_events
from tests.conftest import write_event_file

EVENTS, LENGTH = 12, 400


def noise(sd=1000.0, seed=0):
    return np.random.default_rng(seed).normal(0, sd, (EVENTS, LENGTH, 3))


def tone(peak, limit=np.inf, period=31.7):
    return np.clip(peak * np.sin(2 * np.pi * np.arange(LENGTH) / period), -limit, limit)


@pytest.fixture
def clipped(tmp_path):
    """Which events are clipped, and in which microphones."""

    def find(audio, dtype):
        path = write_event_file(
            tmp_path / "calls.h5",
            lengths=[audio.shape[1]] * len(audio),
            audio=audio.reshape(-1, audio.shape[2]),
            num_microphones=audio.shape[2],
            dtype=dtype,
        )
        tops = find_clipped(scan_audio(open_events(path)))
        return sorted({(top.event, top.channel) for top in tops})

    return find


@pytest.mark.parametrize("dtype", ["int16", "int32"])
def test_the_limit_of_the_integers(clipped, dtype):
    audio, limits = noise(), np.iinfo(dtype)
    audio[3, 10:13, 1] = limits.max
    audio[5, 10:13, 0] = limits.min
    audio[7, [10, 12, 14, 15], 2] = limits.max  # never three in a row
    assert clipped(audio, dtype) == [(3, 1), (5, 0)]


@pytest.mark.parametrize("scale", [32767.0, 32768.0, 1.0, 32767 / 32768, 8388607.0])
def test_a_known_full_scale_in_floats_once_is_enough(clipped, scale):
    audio = noise(sd=scale / 10)
    audio[3, 100:103, 2] = scale
    assert clipped(audio, "float64") == [(3, 2)]


def test_24_bits_in_int32(clipped):
    audio = noise(sd=1e6)
    audio[3, 100:103, 2] = 2**23 - 1
    assert clipped(audio, "int32") == [(3, 2)]


def test_an_unknown_rail_that_events_share(clipped):
    audio = noise()
    for event in (2, 6):
        audio[event, 50:54, 0] = 6789.25
    assert clipped(audio, "float32") == [(2, 0), (6, 0)]


def test_a_clipped_tone_in_one_event(clipped):
    audio = noise(sd=10)
    audio[4, :, 1] += tone(5000)
    audio[4, :, 1] = np.clip(audio[4, :, 1], -4000.5, 4000.5)
    assert clipped(audio, "float32") == [(4, 1)]


def test_one_flat_top_alone_is_no_evidence(clipped):
    audio = noise()
    audio[2, 50:53, 0] = 6789.25
    assert clipped(audio, "float32") == []


def test_a_flat_top_below_others_of_the_file_is_no_rail(clipped):
    audio = noise()
    for event in (2, 6):
        audio[event, 50:54, 0] = 6789.25
    audio[9, 50, 0] = 7000
    assert clipped(audio, "float32") == []


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_noise_of_5_sd_is_not_clipped(clipped, dtype):
    audio = noise(sd=5000)
    audio[4] *= 1.2
    assert clipped(np.clip(audio, -32000, 32000) if dtype == "float32" else audio, dtype) == []


@given(sd=st.floats(0.2, 60), seed=st.integers(0, 9))
@settings(deadline=None, max_examples=40)
def test_coarse_noise_is_not_clipped(tmp_path_factory, sd, seed):
    audio = np.round(noise(sd, seed)).reshape(-1, 3)
    path = write_event_file(
        tmp_path_factory.mktemp("coarse") / "calls.h5",
        lengths=[LENGTH] * EVENTS,
        audio=audio,
        num_microphones=3,
        dtype="int16",
    )
    assert find_clipped(scan_audio(open_events(path))) == []


@pytest.mark.parametrize("dtype", ["int16", "float32"])
@pytest.mark.parametrize("period", [400.0, 2500.0, 12500.0])
def test_hum_is_not_clipped(clipped, dtype, period):
    """50 Hz at 125 kHz is a period of 2500 samples; all events reach the same crest."""
    audio = np.stack([np.round(300 * np.sin(2 * np.pi * np.arange(15000) / period))] * 3, 1)
    assert clipped(np.stack([audio] * 4), dtype) == []


def test_gated_and_padded_events_are_not_clipped(clipped):
    audio = np.abs(noise())
    audio[:, :100] = audio[:, 300:] = 0  # 0 is the smallest value, in long runs, of all events
    assert clipped(audio, "float32") == []
    assert clipped(audio - 500, "float32") != []  # any other value in long runs is a rail


def test_events_that_hold_each_sample_several_times_are_not_clipped(clipped):
    audio = np.repeat(noise()[:, :100], 4, axis=1)
    assert clipped(audio, "float32") == []


def test_each_file_has_its_own_rail(tmp_path):
    loud, quiet = noise(sd=5000), noise(sd=500, seed=1)
    for event in (2, 6):
        quiet[event, 50:54, 0] = 2500.5
    for name, audio in (("loud", loud), ("quiet", quiet)):
        write_event_file(
            tmp_path / f"{name}.h5",
            lengths=[LENGTH] * EVENTS,
            audio=audio.reshape(-1, 3),
            num_microphones=3,
        )
    finding = check_clipping(scan_audio(open_events(tmp_path)))[0]
    assert (finding.code, finding.count) == ("clipped-events", 2)
    assert finding.examples == ("event 2 of quiet.h5", "event 6 of quiet.h5")
    assert "2500.5" in finding.message
    assert "microphones [0]" in finding.message


class TestShare:
    @pytest.fixture
    def share(self, tmp_path):
        def share(audio_TC, dtype="float64"):
            path = write_event_file(
                tmp_path / "calls.h5",
                lengths=[len(audio_TC)],
                audio=audio_TC,
                num_microphones=audio_TC.shape[1],
                dtype=dtype,
            )
            return find_clipped_share(scan_audio(open_events(path)))[0]

        return share

    @pytest.mark.parametrize("limit", [0.95, 0.8, 0.5])
    @pytest.mark.parametrize("hertz", [50.1, 7_013.0, 41_007.0])
    def test_of_a_sine(self, share, limit, hertz):
        """Above the limit is the part 1 - 2 asin(limit) / pi of a sine."""
        sine = np.sin(2 * np.pi * hertz / 125_000 * np.arange(50_000) + 0.3)[:, None]
        expected = 1 - 2 * np.arcsin(limit) / np.pi
        assert share(np.clip(sine, -limit, limit)) == pytest.approx([expected], abs=0.005)
        assert share(np.minimum(sine, limit)) == pytest.approx([expected / 2], abs=0.005)
        assert share(sine) == [0]

    @pytest.mark.parametrize("dtype", ["int16", "int32"])
    def test_at_the_limit_of_the_integers(self, share, dtype):
        limits = np.iinfo(dtype)
        sine = 1.2 * limits.max * np.sin(0.35 * np.arange(20_000))[:, None]
        assert share(np.clip(sine, limits.min, limits.max), dtype) > 0.3

    def test_below_the_limit_of_the_integers(self, share):
        noise = np.random.default_rng(0).normal(0, 100, (20_000, 2))
        noise += 3000 * np.sin(0.35 * np.arange(20_000))[:, None]
        noise[:, 0] = np.clip(noise[:, 0], -2000, 2000)
        first, second = share(noise, "int16")
        assert first > 0.3
        assert second == 0

    def test_events_of_other_gains_have_their_own_limit(self, clipped):
        audio = noise(sd=100)
        for event, gain in ((3, 1.0), (7, 0.1)):
            audio[event] = np.clip(audio[event], -150, 150) * gain
        assert clipped(audio, "float32") == [(event, c) for event in (3, 7) for c in range(3)]


def test_less_than_data_clean_lets_pass_is_no_finding(tmp_path):
    audio = np.random.default_rng(0).normal(0, 3000, (10_000, 2))
    audio[100:110, 0] = 32767  # 0.2 % of the samples of the first event
    path = tmp_path / "calls.h5"
    options = {"lengths": [5000, 5000], "num_microphones": 2, "dtype": "int16"}
    write_event_file(path, audio=audio, **options)
    (finding,) = check_clipping(scan_audio(open_events(path)))
    assert finding.count == 1
    audio[105:110, 0] = 0
    write_event_file(path, audio=audio, **options)
    scan = scan_audio(open_events(path))
    assert len(find_clipped(scan)) == 1
    assert check_clipping(scan) == []


def test_a_loud_event_is_evidence_for_one_that_just_reaches_the_limit(clipped):
    audio = noise()
    audio[4, 10:13, 1] = 4321.5
    assert clipped(audio, "float32") == []
    audio[8, :, 1] = tone(7000, 4321.5)
    audio[2, :, 1] /= 10
    audio[2, 10:13, 1] = 432.1  # below the limit that the others reach
    assert clipped(audio, "float32") == [(4, 1), (8, 1)]
