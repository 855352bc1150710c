import collections
import functools

import numpy as np
import pytest

from gerbil_tune.config.cleaning import CleaningConfig, load_cleaning
from gerbil_tune.config.schema import DataConfig
from gerbil_tune.data.checks.audio import check_audio
from gerbil_tune.data.checks.audio_scan import scan_audio
from gerbil_tune.data.checks.inspection import CLEANABLE
from gerbil_tune.data.cleaning.cleaning import clean_events
from gerbil_tune.data.events import open_events, recording_setup
from gerbil_tune.errors import ConfigError
from tests.benchmarks.cleaning import (
    FAULTS,
    Recording,
    clean,
    count,
    draw_bodies,
    plant_faults,
    write_recording,
)

NUM_EVENTS = 60
LENGTH = 3000
FILTERS = list(CleaningConfig.model_fields)


@functools.cache
def _calls(num_events, num_microphones, seed, level):
    generator = np.random.default_rng(seed)
    lengths = generator.integers(LENGTH, 2 * LENGTH, num_events)
    audio = []
    for num_samples in lengths:
        event_TC = generator.normal(0, level / 10, (num_samples, num_microphones))
        begin = num_samples // 4
        part = np.arange(num_samples // 2)
        tone = np.sin(2 * np.pi * generator.uniform(0.05, 0.3) * part + generator.uniform(0, 6))
        tone *= np.hanning(len(part)) * level * generator.uniform(0.5, 2)
        event_TC[begin : begin + len(part)] += tone[:, None] * generator.uniform(
            0.3, 1, num_microphones
        )
        audio.append(event_TC)
    return audio


def calls(num_events=NUM_EVENTS, num_microphones=4, seed=0, level=0.01):
    """Calls in white noise, one (T, C) array an event, to be spoiled."""
    return [event_TC.copy() for event_TC in _calls(num_events, num_microphones, seed, level)]


@pytest.fixture
def run(make_event_file):
    """Clean events with some filters on; the others are off."""

    def run(*names, audio=None, locations="random", overrides=(), data=None, **options):
        audio = calls() if audio is None else audio
        path = make_event_file(
            audio=np.concatenate(audio),
            lengths=[len(event_TC) for event_TC in audio],
            num_microphones=audio[0].shape[1],
            locations=locations,
            **{"dtype": "float64", **options},
        )
        events = open_events(path)
        off = [f"{name}=null" for name in FILTERS if names and name not in names]
        # Without the names of those that are on: they may be unfit for the data.
        config = load_cleaning(None, [*off, *overrides])
        return clean_events(events, recording_setup(events, data or DataConfig()), config)

    return run


def outcome(result, name):
    return next(found for found in result.outcomes if found.name == name)


def removed(result):
    return list(result.reasons)


class TestResult:
    def test_good_events_stay(self, run):
        result = run()
        assert result.kept.tolist() == list(range(NUM_EVENTS))
        assert result.kept.dtype == np.int64
        assert result.reasons == {}
        assert [found.name for found in result.outcomes] == FILTERS

    def test_every_reason_is_told(self, run):
        audio = calls()
        audio[3][:] = 0
        audio[5][7, 1] = np.nan
        locations = np.zeros((NUM_EVENTS, 2))
        locations[3] = 400, 0
        result = run(audio=audio, locations=locations)
        assert result.reasons == {3: ("silence", "outside_arena"), 5: ("not_finite",)}
        assert result.explain(3) == (
            "silence: no sound at all",
            "outside_arena: nose is 114 mm outside",
        )
        assert result.explain(5) == ("not_finite: samples that are NaN or infinite",)
        assert result.explain(4) == ()
        assert result.kept.tolist() == [i for i in range(NUM_EVENTS) if i not in (3, 5)]
        assert {name: n for name, n in result.counts.items() if n} == {
            "silence": 1,
            "outside_arena": 1,
            "not_finite": 1,
        }
        assert {name: n for name, n in result.counts_alone.items() if n} == {"not_finite": 1}

    def test_places_are_those_of_the_whole_data(self, make_event_file):
        audio = calls()
        audio[10] = audio[10] * 0
        lengths = [len(event_TC) for event_TC in audio]
        options = {"audio": np.concatenate(audio), "lengths": lengths, "dtype": "float64"}
        whole = open_events([make_event_file(name, **options) for name in ("a.h5", "b.h5")])
        some = whole.subset([70, 5, 3, 64])
        result = clean_events(
            some, recording_setup(some, DataConfig()), CleaningConfig(duplicates=None)
        )
        assert result.reasons == {0: ("silence",)}
        assert result.kept.tolist() == [5, 3, 64]
        assert result.rows.tolist() == [70, 5, 3, 64]

    def test_a_filter_that_is_off_finds_nothing(self, run):
        audio = calls()
        audio[3][:] = 0
        assert removed(run("silence", audio=audio)) == [3]
        assert removed(run("clipping", audio=audio)) == []


class TestNotFinite:
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_audio_and_locations(self, run, value):
        audio, locations = calls(), np.zeros((NUM_EVENTS, 2))
        audio[2][17, 3] = locations[9, 1] = value
        options = {"audio": audio, "locations": locations}
        assert removed(run("not_finite", **options)) == [2, 9]
        assert removed(run("not_finite", overrides=["not_finite/audio=false"], **options)) == [9]
        assert removed(run("not_finite", overrides=["not_finite/locations=false"], **options)) == [
            2
        ]

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_the_other_filters_do_not_judge_what_is_not_finite(self, run, value):
        audio = calls()
        audio[2][:, 0] = value
        locations = draw_bodies(np.random.default_rng(0), NUM_EVENTS, 3)
        locations[9, 1, 1] = value
        result = run(audio=audio, locations=locations, keypoints=("nose", "head", "tail"))
        assert result.reasons == {2: ("not_finite",), 9: ("not_finite",)}


class TestDuration:
    def test_the_default_is_the_longest_delay(self, run):
        """Across 572 mm by 356 mm sound takes 1.963 ms, at 125 kHz 245.4 samples."""
        audio = calls()
        audio[4], audio[5] = audio[4][:245], audio[5][:246]
        result = run("duration", audio=audio)
        assert removed(result) == [4]
        assert outcome(result, "duration").limit == pytest.approx(1.963, abs=1e-3)
        assert result.explain(4) == ("duration: 1.96 ms, too short",)

    def test_limits(self, run):
        audio = [event_TC[:1250] for event_TC in calls()]
        audio[4] = audio[4][:1249]
        audio[8] = np.concatenate([audio[8], audio[8][:1]])
        limits = ["duration/min_ms=10", "duration/max_ms=10"]
        assert removed(run("duration", audio=audio, overrides=limits)) == [4, 8]

    def test_empty_events_go_at_any_limit(self, run):
        audio = calls()
        audio[7] = audio[7][:0]
        result = run(audio=audio, overrides=["duration/min_ms=0"])
        assert result.reasons == {7: ("duration",)}


class TestSilence:
    @pytest.mark.parametrize(("factor", "is_found"), [(0.0, True), (1e-3, True), (0.03, False)])
    def test_relative_to_the_median_event(self, run, factor, is_found):
        audio = calls()
        audio[6] *= factor
        assert removed(run("silence", audio=audio)) == [6] * is_found

    def test_relative_to_the_full_scale(self, run):
        audio = [np.round(event_TC * 1e5) for event_TC in calls()]  # about -40 dB
        options = {"audio": audio, "dtype": "int16"}
        relative = "silence/relative_to=full_scale"
        assert (
            removed(run("silence", overrides=[relative, "silence/min_level_db=-60"], **options))
            == []
        )
        loud = run("silence", overrides=[relative, "silence/min_level_db=-20"], **options)
        assert len(removed(loud)) == NUM_EVENTS

    def test_files_of_other_integers_are_compared_in_their_numbers(self, make_event_file):
        audio = [np.round(event_TC * 1e5) for event_TC in calls()]
        options = {"audio": np.concatenate(audio), "lengths": [len(one) for one in audio]}
        paths = [
            make_event_file(f"{dtype}.h5", dtype=dtype, **options) for dtype in ("int16", "int32")
        ]
        events = open_events(paths)
        config = CleaningConfig(duplicates=None)
        assert clean_events(events, recording_setup(events, DataConfig()), config).reasons == {}

    def test_one_working_microphone_of_four_is_not_enough(self, run):
        audio = calls()
        audio[6][:, 1:] = 0
        assert removed(run("silence", audio=audio)) == [6]


class TestDeadMicrophone:
    def test_in_one_event(self, run):
        audio = calls()
        audio[11][:, 2] *= 1e-4
        audio[12][:, 0] = 3.0
        result = run("dead_microphone", audio=audio)
        assert result.explain(11) == (
            "dead_microphone: microphones [2] (counted from 0) are silent",
        )
        assert removed(result) == [11, 12]

    def test_in_all_events_is_a_note(self, run):
        audio = calls()
        for event_TC in audio:
            event_TC[:, 1] = 0
        audio[11][:, 2] = 0
        result = run("dead_microphone", audio=audio)
        assert removed(result) == [11]
        assert "microphones [1]" in outcome(result, "dead_microphone").note

    def test_a_silent_event_is_none(self, run):
        audio = calls()
        audio[3][:] = 0
        assert run(audio=audio).reasons == {3: ("silence",)}


class TestClipping:
    def test_a_cut_off_microphone(self, run):
        audio = calls()
        channel_T = audio[20][:, 1]
        np.clip(channel_T, -0.5 * channel_T.max(), 0.5 * channel_T.max(), out=channel_T)
        result = run("clipping", audio=audio)
        assert removed(result) == [20]
        assert "of the samples of microphone 1 are cut off" in result.explain(20)[0]

    def test_the_share_can_be_chosen(self, run):
        audio = calls()
        audio[20] = np.clip(audio[20], -0.004, 0.004)
        assert removed(run("clipping", audio=audio)) == [20]
        assert removed(run("clipping", audio=audio, overrides=["clipping/max_share=0.9"])) == []


class TestSnr:
    def test_noise_alone(self, run):
        audio = calls()
        audio[30] = np.random.default_rng(1).normal(0, 0.002, (5000, 4))
        result = run("snr", audio=audio)
        assert removed(result) == [30]
        assert len(removed(run("snr", audio=audio, overrides=["snr/min_db=60"]))) == NUM_EVENTS

    def test_what_cannot_be_measured_stays_and_is_told(self, run):
        audio = calls()
        audio[30] = audio[30][:1999]
        result = run("snr", audio=audio)
        assert removed(result) == []
        assert "not measured: 1 that" in outcome(result, "snr").note


class TestOutsideArena:
    @pytest.mark.parametrize("axis", [0, 1])
    @pytest.mark.parametrize("sign", [-1, 1])
    def test_tolerance(self, run, axis, sign):
        half = (286.0, 178.0)[axis]
        locations = np.zeros((NUM_EVENTS, 2))
        locations[[4, 5, 6], axis] = sign * (half + np.array([0, 19.9, 20.1]))
        assert removed(run("outside_arena", locations=locations)) == [6]
        strict = ["outside_arena/tolerance_mm=0"]
        assert removed(run("outside_arena", locations=locations, overrides=strict)) == [5, 6]

    def test_height_is_counted_from_the_floor(self, run):
        locations = np.zeros((NUM_EVENTS, 3))
        locations[[1, 2, 3], 2] = -30, 300, 330
        arena = {"arena_mm": (572.0, 356.0, 300.0)}
        assert removed(run("outside_arena", locations=locations, **arena)) == [1, 3]

    def test_any_keypoint_counts(self, run):
        locations = np.zeros((NUM_EVENTS, 2, 2))
        locations[8, 1] = 400, 0
        result = run("outside_arena", locations=locations, keypoints=("nose", "tail"))
        assert result.explain(8) == ("outside_arena: tail is 114 mm outside",)


class TestKeypointDistance:
    def bodies(self):
        locations = np.zeros((NUM_EVENTS, 3, 2))
        locations[:, 1, 0], locations[:, 2, 0] = 20, 90
        locations[7, 0, 0] = -60  # 80 from the ears, 150 from the tail
        return {"locations": locations, "keypoints": ("nose", "ears", "tail")}

    def test_the_nose_is_too_far_from_the_ears(self, run):
        overrides = ["keypoint_distance/max_mm=60", "keypoint_distance/between=[nose, ears]"]
        result = run("keypoint_distance", overrides=overrides, **self.bodies())
        assert result.explain(7) == ("keypoint_distance: nose and ears are 80 mm apart",)
        assert removed(result) == [7]

    def test_the_default_is_half_the_shorter_side(self, run):
        bodies = self.bodies()
        assert removed(run("keypoint_distance", **bodies)) == []
        bodies["locations"][7, 0, 0] = -90
        result = run("keypoint_distance", **bodies)
        assert removed(result) == [7]
        assert outcome(result, "keypoint_distance").limit == 178

    @pytest.mark.parametrize("names", ["[nose, toe]", "[nose, nose]"])
    def test_unknown_names(self, run, names):
        with pytest.raises(ConfigError, match="valid: nose, ears, tail"):
            run(overrides=[f"keypoint_distance/between={names}"], **self.bodies())


class TestSkeleton:
    def test_a_far_nose(self, run):
        locations = draw_bodies(np.random.default_rng(0), NUM_EVENTS, 3)
        locations[13, 0] = -locations[13, 0] + 90
        result = run("skeleton", locations=locations, keypoints=("nose", "head", "tail"))
        assert removed(result) == [13]
        assert "nose and" in result.explain(13)[0]
        assert "mm apart (usually" in result.explain(13)[0]


class TestNotApplicable:
    @pytest.mark.parametrize("name", ["keypoint_distance", "skeleton"])
    def test_one_keypoint(self, run, name):
        found = outcome(run(), name)
        assert found.skipped == "there is one keypoint, nose"
        assert not found.is_hit_N.any()

    @pytest.mark.parametrize("name", ["keypoint_distance", "skeleton", "outside_arena"])
    def test_no_locations(self, run, name):
        assert outcome(run(locations=None), name).skipped == "the data have no locations"

    def test_too_few_events(self, run):
        locations = draw_bodies(np.random.default_rng(0), 40, 4)
        names = ("a", "b", "c", "d")
        result = run(audio=calls(40), locations=locations[:40], keypoints=names)
        assert outcome(result, "skeleton").skipped is None
        result = run(audio=calls(39), locations=locations[:39], keypoints=names)
        assert "39 events with locations are too few" in outcome(result, "skeleton").skipped

    def test_what_is_asked_for_by_name_is_an_error(self, run):
        with pytest.raises(ConfigError) as error:
            run(overrides=["skeleton/transform=log"])
        assert "skeleton cannot be applied: there is one keypoint, nose" in str(error.value)
        assert "--set skeleton=null" in str(error.value)
        run(overrides=["skeleton=null"])


class TestDuplicates:
    def test_the_first_is_kept(self, run):
        audio = calls()
        audio[40] = audio[50] = audio[8]
        result = run("duplicates", audio=audio)
        assert removed(result) == [40, 50]
        assert result.explain(40) == ("duplicates: same audio as event 8 of events.h5",)

    def test_the_first_that_no_other_filter_removes_is_kept(self, run):
        audio = calls()
        audio[40] = audio[50] = audio[8]
        locations = np.zeros((NUM_EVENTS, 2))
        locations[8] = 400, 0
        result = run("duplicates", "outside_arena", audio=audio, locations=locations)
        assert result.reasons == {8: ("outside_arena", "duplicates"), 50: ("duplicates",)}

    def test_empty_and_silent_events_are_no_copies(self, run):
        audio = calls()
        audio[3], audio[4] = audio[3][:0], audio[4][:0]
        audio[5] = audio[6] = np.zeros((500, 4))
        result = run(audio=audio)
        assert {i: names for i, names in result.reasons.items() if i < 5} == {
            3: ("duration",),
            4: ("duration",),
        }
        assert result.reasons[6] == ("silence",)


class TestImpulseResponses:
    def responses(self):
        time = np.arange(1000)[:, None]
        generator = np.random.default_rng(0)
        return [
            generator.normal(0, gain, (1000, 4)) * np.exp(-time / 100)
            for gain in np.geomspace(0.03, 0.3, NUM_EVENTS)
        ]

    def test_filters_of_sound_are_skipped(self, run):
        audio = self.responses()
        audio[3][5, 1], audio[7], audio[9] = np.nan, audio[6], audio[9] * 0
        audio[8][:, 2] = 0
        result = run(audio=audio, layout="rir")
        assert result.reasons == {
            3: ("not_finite",),
            7: ("duplicates",),
            8: ("dead_microphone",),
            9: ("silence",),
        }
        skipped = {
            found.name for found in result.outcomes if found.skipped and "impulse" in found.skipped
        }
        assert skipped == {"clipping", "snr"}

    def test_what_is_asked_for_by_name_is_an_error(self, run):
        with pytest.raises(ConfigError, match="snr cannot be applied: impulse responses"):
            run(audio=self.responses(), layout="rir", overrides=["snr/min_db=6"])


FILTER_OF = {
    "nan-audio": "not_finite",
    "silent-events": "silence",
    "quiet-events": "silence",
    "partly-dead-microphones": "dead_microphone",
    "clipped-events": "clipping",
    "duplicate-events": "duplicates",
}


class TestAgreesWithTheCheck:
    """What `data check` says of events, and advises to clean, is what goes by default."""

    @pytest.mark.parametrize("dtype", ["float32", "int16"])
    def test_in_all_that_is_about_audio(self, make_event_file, dtype):
        audio = [event_TC * 2e5 for event_TC in calls()]
        audio[11] *= 1e-3
        audio[12][:] = 0
        audio[20][:, 1] = np.clip(audio[20][:, 1], -1000, 1000)
        audio[21] = np.clip(audio[21] * 50, -32768, 32767)
        audio[22][100:103, 0] = 32767  # 3 samples of thousands: neither tells, neither removes
        audio[30], audio[40] = audio[29], audio[28]
        audio[41][:, 2] = 5
        if dtype == "float32":
            audio[50][3, 0] = np.nan
            audio[42][:, 3] *= 1e-4
        path = make_event_file(
            audio=np.concatenate(audio), lengths=[len(one) for one in audio], dtype=dtype
        )
        events = open_events(path)
        findings = check_audio(scan_audio(events))
        result = clean_events(events, recording_setup(events, DataConfig()), CleaningConfig())
        told = collections.Counter()
        for finding in findings:
            assert finding.code in CLEANABLE
            told[FILTER_OF[finding.code]] += finding.count
        removed = {name: count for name, count in result.counts.items() if count and name != "snr"}
        assert removed == dict(told)
        assert len(told) == (5 if dtype == "float32" else 4)

    def test_a_microphone_that_is_silent_in_most_events_is_no_fault_of_events(self, run, tmp_path):
        audio = calls()
        for event_TC in audio[:40]:
            event_TC[:, 1] = 0
        assert run(audio=audio).reasons == {}
        codes = {finding.code for finding in check_audio(scan_audio(open_events(tmp_path)))}
        assert codes == {"dead-microphones"}
        assert not codes & CLEANABLE


def test_progress_counts_every_event(make_event_file):
    lengths = [300] * 70
    lengths[5] = 0
    events = open_events(make_event_file(lengths=lengths))
    told = []
    setup = recording_setup(events, DataConfig())
    clean_events(events, setup, CleaningConfig(), advance=told.append)
    assert sum(told) == 70


class TestPlantedFaults:
    """5 % of the events have one fault each: at least 95 % are found, less than 1 % of the good go."""

    @pytest.mark.parametrize("num_keypoints", [2, 3, 5])
    @pytest.mark.parametrize("seed", [0, 1])
    def test_are_found(self, tmp_path, num_keypoints, seed):
        generator = np.random.default_rng(seed)
        audio = [event_TC.astype(np.float32) for event_TC in calls(400, seed=seed)]
        recording = Recording(audio, draw_bodies(generator, 400, num_keypoints))
        _, lost = count(clean(write_recording(tmp_path / "clean.h5", recording)), {})
        assert lost < 0.005
        planted = plant_faults(recording, generator)
        assert len(planted) == 20
        assert set(planted.values()) == set(FAULTS)
        found, removed = count(clean(write_recording(tmp_path / "bad.h5", recording)), planted)
        assert found >= 0.95
        assert removed < 0.01

    def test_in_simulated_calls(self, tmp_path):
        from gerbil_tune.data import simulate as simulation

        spec = simulation.make_spec(simulation.PRESETS["e1"], keypoints=2, duration_ms=(20.0, 40.0))
        path = tmp_path / "simulated.h5"
        simulation.simulate(spec, path, num_events=200, seed=3, processes=1, show_progress=False)
        events = open_events(path)
        recording = Recording([np.array(events.read(i)) for i in range(200)], events.locations_mm)
        assert clean(events).reasons == {}
        planted = plant_faults(recording, np.random.default_rng(3))
        result = clean(write_recording(tmp_path / "bad.h5", recording))
        assert list(result.reasons) == sorted(planted)
