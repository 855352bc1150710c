"""Malformed data, one function a fault, each with what ``gerbil-tune data check`` must say of it."""

import os
from dataclasses import dataclass

import h5py
import numpy as np

from gerbil_tune.data.events import open_events
from gerbil_tune.data.files.writer import write_events
from tests.contracts.data_folder import ARENA_MM, EVENTS, LENGTH, MICROPHONES


@dataclass(frozen=True)
class Case:
    build: object
    exit_code: int
    code: str
    words: tuple[str, ...]
    others: tuple[str, ...]


CASES: dict[str, Case] = {}


def malformed(exit_code, code, *words, others=()):
    """Register a case: exit code, code of the finding, words of its sentence, and codes that come with it."""

    def register(build):
        CASES[build.__name__] = Case(build, exit_code, code, words, others)
        return build

    return register


def unreadable(*words):
    return malformed(2, "cannot-open", *words)


# Files that cannot be opened.


@unreadable("none.h5", "does not exist")
def a_missing_file(folder):
    return folder / "none.h5"


@unreadable("empty_folder", "no file ending in .h5")
def a_folder_without_files(folder):
    (folder / "empty_folder").mkdir()
    return folder / "empty_folder"


@unreadable("notes.h5", "cannot be opened as HDF5", "another format")
def a_text_file(folder):
    (folder / "notes.h5").write_text("these are notes\n" * 100)
    return folder / "notes.h5"


@unreadable("calls.h5", "empty (0 bytes)")
def an_empty_file(folder):
    (folder / "calls.h5").touch()
    return folder / "calls.h5"


@unreadable("calls.h5", "cannot be opened as HDF5", "cut short")
def a_truncated_file(folder):
    path = folder.file()
    os.truncate(path, path.stat().st_size // 2)
    return path


@unreadable("calls.h5", "cannot be opened as HDF5")
def a_file_of_which_the_last_bytes_are_missing(folder):
    path = folder.file()
    os.truncate(path, path.stat().st_size - 8)
    return path


@unreadable("calls.h5")
def a_compressed_file_with_damaged_chunks(folder):
    path = folder.file(audio_options={"chunks": (1000, 4), "compression": "gzip"})
    with h5py.File(path) as file:
        chunk = file["vocalizations"].id.get_chunk_info(2)
    with path.open("r+b") as stream:
        stream.seek(chunk.byte_offset)
        stream.write(b"\xff" * 200)
    return path


@unreadable("calls.h5", "may not be read")
def a_file_without_read_permission(folder):
    path = folder.file()
    path.chmod(0)
    return path


@unreadable("calls.h5", "needs the datasets 'vocalizations' with 'len_idx'", "len_idx, locations")
def no_audio(folder):
    return folder.edited(folder.file(), "vocalizations", None)


@unreadable("calls.h5", "'len_idx' is missing")
def no_index(folder):
    return folder.edited(folder.file(), "len_idx", None)


@unreadable("calls.h5", "'vocalizations' has shape (6000,)", "one column a microphone")
def audio_of_one_axis(folder):
    return folder.edited(folder.file(), "vocalizations", np.zeros(6000))


@unreadable("calls.h5", "'vocalizations' has shape (20, 4, 300)", "index")
def audio_of_three_axes_with_an_index(folder):
    return folder.edited(folder.file(), "vocalizations", np.zeros((20, 4, 300)))


@unreadable("calls.h5", "'vocalizations' has shape (4, 6000)", "transpose")
def audio_with_the_axes_exchanged(folder):
    return folder.edited(folder.file(), "vocalizations", np.zeros((4, 6000)))


@unreadable("calls.h5", "'vocalizations' has type complex128")
def audio_of_complex_numbers(folder):
    return folder.edited(folder.file(), "vocalizations", np.zeros((6000, 4), complex))


@unreadable("calls.h5", "'vocalizations' has type uint16", "signed")
def audio_of_unsigned_integers(folder):
    return folder.edited(folder.file(), "vocalizations", np.zeros((6000, 4), np.uint16))


@unreadable("calls.h5", "there is no audio in it")
def audio_without_samples(folder):
    return folder.edited(folder.file(), "vocalizations", np.zeros((0, 4)))


@unreadable("calls.h5", "'vocalizations' is a group")
def audio_that_is_a_group(folder):
    folder.edited(folder.file(), "vocalizations", None)
    return folder.edited(folder / "calls.h5", "vocalizations/a", np.zeros(3))


@unreadable("calls.h5", "'vocalizations' and 'audio'", "delete")
def audio_of_two_layouts(folder):
    return folder.edited(folder.file(), "audio", np.zeros((6000, 4)))


@unreadable("calls.h5", "never written")
def audio_that_was_never_written(folder):
    path = folder.edited(folder.file(), "vocalizations", None)
    with h5py.File(path, "r+") as file:
        file.create_dataset("vocalizations", (6000, 4), "f4")
    return path


@unreadable("calls.h5", "'len_idx' must be a 1-D dataset of integers")
def an_index_of_floats(folder):
    return folder.edited(folder.file(), "len_idx", np.linspace(0, 6000, 21))


@unreadable("calls.h5", "'len_idx' must be a 1-D dataset of integers")
def an_index_of_two_axes(folder):
    return folder.edited(folder.file(), "len_idx", np.zeros((20, 2), int))


@unreadable("calls.h5", "'len_idx' must not descend", "from 900 to 600 at entry 4")
def an_index_that_descends(folder):
    starts = np.arange(21) * 300
    starts[4] = 600
    return folder.edited(folder.file(), "len_idx", starts)


@unreadable("calls.h5", "'len_idx' goes from -300")
def an_index_that_begins_below_zero(folder):
    return folder.edited(folder.file(), "len_idx", np.arange(-1, 20) * 300)


@unreadable("calls.h5", "'len_idx' goes from 0 to 6300", "6000 samples")
def an_index_beyond_the_audio(folder):
    return folder.edited(folder.file(), "len_idx", np.arange(21) * 315)


@unreadable("calls.h5", "'len_idx' goes from 0 to 24000", "6000 samples")
def an_index_that_counts_all_channels(folder):
    return folder.edited(folder.file(), "len_idx", np.arange(21) * 300 * 4)


@unreadable("calls.h5", "'locations' has 20 entries, but the index has 19 events")
def an_index_without_its_end(folder):
    return folder.edited(folder.file(), "len_idx", np.arange(20) * 300)


@unreadable("calls.h5", "1 entries")
def an_index_of_no_event(folder):
    return folder.edited(folder.file(), "len_idx", np.zeros(1, int))


@unreadable("calls.h5", "'locations' has shape (20, 5)", "2 or 3 axes")
def locations_of_five_axes(folder):
    return folder.edited(folder.file(), "locations", np.zeros((20, 5)))


@unreadable("calls.h5", "'locations' has shape (20, 10, 3, 2)")
def locations_of_every_video_frame(folder):
    return folder.edited(folder.file(), "locations", np.zeros((20, 10, 3, 2)))


@unreadable("calls.h5", "'locations' must be a dataset of numbers")
def locations_of_text(folder):
    return folder.edited(folder.file(), "locations", np.array([b"left"] * 20))


@unreadable("calls.h5", "'node_names' has 2 names, but 'locations' has 1 keypoints")
def names_of_other_keypoints(folder):
    return folder.edited(folder.file(), "node_names", np.array([b"nose", b"tail"]))


@unreadable("calls.h5", "'node_names' names a keypoint twice")
def a_keypoint_named_twice(folder):
    return folder.file(locations=folder.skeleton(), keypoints=["nose", "ear", "ear"])


@unreadable("calls.h5", "'group_ids' must be a dataset of one integer an event")
def groups_of_other_events(folder):
    return folder.edited(folder.file(), "group_ids", np.zeros(19, int))


@unreadable("calls.h5", "attribute 'units'", "'inch'", "valid: mm, cm, m")
def an_unknown_unit(folder):
    return folder.file(attributes={"units": "inch"})


@unreadable("calls.h5", "attribute 'origin' is 'lower left corner'", "subtract half the arena")
def a_stated_origin_in_the_corner(folder):
    return folder.file(attributes={"origin": "lower left corner"})


@unreadable("calls.h5", "'sample_rate_hz' must be one positive number", "-125000")
def a_negative_sample_rate(folder):
    return folder.file(sample_rate_hz=-125_000.0)


@unreadable("calls.h5", "'arena_mm' must be 2 or 3 positive widths")
def an_arena_of_one_width(folder):
    return folder.file(attributes={"arena_mm": [572.0]})


@unreadable("calls.h5", "'microphones_mm' must be 4 rows of x, y and z")
def places_of_other_microphones(folder):
    return folder.file(microphones_mm=np.zeros((3, 3)))


@unreadable("manifest.json", "no manifest that can be read")
def a_damaged_manifest(folder):
    folder.file()
    (folder / "manifest.json").write_text('{"format": ')
    return folder.path


@malformed(2, "given-twice", "calls.h5", "is given twice")
def a_file_that_is_given_twice(folder):
    path = folder.file()
    return [path, path]


# Files that do not belong together.


@malformed(2, "files-disagree", "b.h5", "microphones: 3, but 4", "a.h5")
def files_of_other_microphones(folder):
    return [folder.file("a.h5"), folder.file("b.h5", num_microphones=3, seed=1)]


@malformed(2, "files-disagree", "b.h5", "kind of audio: integers, but floats")
def files_of_integers_and_floats(folder):
    return [folder.file("a.h5"), folder.file("b.h5", dtype="int16", seed=1)]


@malformed(2, "files-disagree", "b.h5", "keypoints: tail", "nose")
def files_of_other_keypoints(folder):
    return [folder.file("a.h5"), folder.file("b.h5", keypoints=["tail"], seed=1)]


@malformed(2, "recording-site", "b.h5", "'sample_rate_hz' is 250000.0, but 125000.0")
def files_of_other_sample_rates(folder):
    return [folder.file("a.h5"), folder.file("b.h5", sample_rate_hz=250_000.0, seed=1)]


# The recording site.


@malformed(2, "no-sample-rate", "calls.h5", "--set data/sample_rate_hz=125000")
def no_sample_rate(folder):
    return folder.file(sample_rate_hz=None)


@malformed(2, "no-arena", "calls.h5", "--set data/arena_mm='[572, 356]'")
def no_arena(folder):
    return folder.file(arena_mm=None)


@malformed(2, "no-arena", "calls.h5", others=("no-sample-rate", "nan-audio", "nan-locations"))
def nothing_stated_and_more_that_is_wrong(folder):
    audio, places = folder.noise(), folder.places()
    audio[5, 7, 1], places[6, 0] = np.nan, np.nan
    return folder.spoilt(audio, locations=places, arena_mm=None, sample_rate_hz=None)


@malformed(2, "recording-site", "locations have 3 axes, but arena_mm is [572.0, 356.0]")
def an_arena_without_height(folder):
    return folder.file(locations=folder.places(num_axes=3))


@malformed(2, "recording-site", "data/keypoints asks for 'beak'", "valid: nose, ear, tail")
def an_unknown_keypoint(folder):
    path = folder.file(locations=folder.skeleton(), keypoints=["nose", "ear", "tail"])
    return [path, "--set", "data/keypoints=[beak]"]


@malformed(0, "config-contradicts-file", "250000.0 by the config, but calls.h5 states 125000.0")
def another_sample_rate_in_the_config(folder):
    path = folder.file(lengths=[600] * 20)
    return [path, "--set", "data/sample_rate_hz=250000"]


@malformed(0, "implausible-sample-rate", "sample_rate_hz is 125", "125000 if it is in kHz")
def a_sample_rate_in_khz(folder):
    return folder.file(sample_rate_hz=125.0)


@malformed(0, "implausible-arena", "seems to be in m")
def an_arena_in_metres(folder):
    return folder.file(arena_mm=(0.572, 0.356), locations=folder.places() * 1e-3)


@malformed(0, "implausible-microphones", "microphones_mm", "in mm")
def microphones_in_metres(folder):
    corners = np.array([[-1, -1, 1], [1, -1, 1], [-1, 1, 1], [1, 1, 1]]) * [0.28, 0.17, 0.3]
    return folder.file(microphones_mm=corners)


@malformed(0, "microphones-origin", "from a corner")
def microphones_from_the_corner(folder):
    corners = np.array([[0, 0, 1], [1, 0, 1], [0, 1, 1], [1, 1, 1]]) * [572.0, 356.0, 300.0]
    return folder.file(microphones_mm=corners)


# Locations.


@malformed(2, "nan-locations", "2 of 20 events (first: event 7 of calls.h5)", "not finite")
def locations_that_are_nan(folder):
    places = folder.places()
    places[[7, 9], 1] = np.nan
    return folder.file(locations=places)


@malformed(2, "nan-locations", "1 of 20 events (first: event 11 of calls.h5)")
def a_location_that_is_infinite(folder):
    places = folder.places()
    places[11, 0] = np.inf
    return folder.file(locations=places)


@malformed(2, "locations-unit", "seem to be in m;", "attribute 'units'")
def locations_in_metres(folder):
    return folder.file(locations=folder.places() * 1e-3)


@malformed(2, "locations-unit", "seem to be in cm;")
def locations_in_centimetres(folder):
    return folder.file(locations=folder.places() * 0.1)


@malformed(2, "locations-unit", "val_set.h5: ", "seem to be in cm;")
def one_of_three_files_in_centimetres(folder):
    folder.file("parts/train_set.h5")
    folder.file("parts/val_set.h5", locations=folder.places() * 0.1, seed=1)
    folder.file("parts/test_set.h5", seed=2)
    return folder / "parts"


@malformed(2, "locations-origin", "from a corner", "subtract half the arena [572.0, 356.0]")
def locations_from_the_corner(folder):
    return folder.file(locations=folder.places() + np.array([286.0, 178.0]))


@malformed(0, "outside-arena", "2 of 20 events (first: event 5 of calls.h5)", "outside the arena")
def some_locations_outside(folder):
    places = folder.places()
    places[[5, 6]] = [[400.0, 0], [0, -300.0]]
    return folder.file(locations=places)


@malformed(2, "outside-arena", "outside the arena", "check data/arena_mm")
def locations_in_pixels(folder):
    return folder.file(locations=folder.places() * 8)


@malformed(2, "axes-swapped", "x and y exchanged")
def locations_with_x_and_y_exchanged(folder):
    return folder.file(locations=folder.places()[:, ::-1])


@malformed(0, "wrong-height", "1 of 20 events (first: event 3 of calls.h5)", "floor")
def a_location_below_the_floor(folder):
    places = folder.places(num_axes=3)
    places[3, 2] = -80
    return folder.file(locations=places, arena_mm=(*ARENA_MM, 300.0))


@malformed(2, "wrong-height", "counted upwards from the floor")
def heights_counted_downwards(folder):
    places = folder.places(num_axes=3)
    places[:, 2] -= 300
    return folder.file(locations=places, arena_mm=(*ARENA_MM, 300.0))


@malformed(2, "zero-locations", "all 20 events are 0")
def locations_that_were_never_filled_in(folder):
    return folder.file(locations=np.zeros((20, 2)))


@malformed(0, "equal-locations", "all 20 events are the same", "[[10.0, 20.0]]")
def locations_that_are_all_equal(folder):
    return folder.file(locations=np.tile([10.0, 20.0], (20, 1)))


@malformed(0, "repeated-locations", "15 of 20 events", "the location of the event before")
def locations_that_stand_still(folder):
    return folder.file(locations=np.repeat(folder.places(5), 4, axis=0))


@malformed(2, "keypoint-never-located", "['tail']", "data/keypoints='[nose, ear]'")
def a_keypoint_that_is_never_seen(folder):
    places = folder.skeleton()
    places[:, 2] = np.nan
    return folder.file(locations=places, keypoints=["nose", "ear", "tail"])


@malformed(0, "equal-keypoints", "nose and tail are at the same place")
def two_keypoints_that_are_one(folder):
    places = folder.skeleton()
    places[:, 2] = places[:, 0]
    return folder.file(locations=places, keypoints=["nose", "ear", "tail"])


@malformed(0, "keypoints-far-apart", "1 of 20 events (first: event 8 of calls.h5)", "data clean")
def a_nose_far_away_from_the_ears(folder):
    places = folder.skeleton()
    places[8, 0], places[8, 1:] = (-250, -150), (250, 150)
    return folder.file(locations=places, keypoints=["nose", "left ear", "right ear"])


@malformed(2, "no-locations", "train_set.h5", "'locations' is missing")
def a_training_part_without_locations(folder):
    folder.file("parts/train_set.h5", locations=None)
    folder.file("parts/val_set.h5", locations=None, seed=1)
    return folder / "parts"


# The index.


@malformed(0, "samples-before-first-event", "calls.h5 begins at sample 300")
def an_index_that_begins_later(folder):
    folder.edited(folder.file(), "locations", folder.places(19))
    return folder.edited(folder / "calls.h5", "len_idx", np.arange(1, 21) * 300)


@malformed(0, "samples-after-last-event", "300 of 6000 samples of calls.h5")
def an_index_that_ends_early(folder):
    folder.edited(folder.file(), "locations", folder.places(19))
    return folder.edited(folder / "calls.h5", "len_idx", np.arange(20) * 300)


@malformed(
    2,
    "index-not-in-samples",
    "20 of 20 events",
    "most of them 1",
    others=("samples-after-last-event",),
)
def an_index_that_counts_events(folder):
    audio = folder.random.standard_normal((6000, 4)) * 1000
    return folder.edited(folder.file(audio=audio), "len_idx", np.arange(21))


@malformed(2, "empty-events", "1 of 20 events (first: event 3 of calls.h5) have no samples")
def an_event_without_samples(folder):
    lengths = [300] * 20
    lengths[3] = 0
    return folder.file(lengths=lengths)


@malformed(0, "short-events", "1 of 20 events (first: event 5 of calls.h5) are shorter than 246")
def an_event_shorter_than_the_longest_delay(folder):
    lengths = [300] * 20
    lengths[5] = 200
    return folder.file(lengths=lengths)


# The audio.


@malformed(2, "nan-audio", "2 of 20 events (first: event 6 of calls.h5)", "NaN or infinite")
def audio_with_nan(folder):
    audio = folder.noise()
    audio[6, 100, 2] = audio[9, 0, 0] = np.nan
    return folder.spoilt(audio)


@malformed(2, "nan-audio", "1 of 20 events (first: event 19 of calls.h5)")
def audio_with_infinity(folder):
    audio = folder.noise()
    audio[19, -1, 3] = -np.inf
    return folder.spoilt(audio, dtype="float64")


@malformed(0, "silent-events", "2 of 20 events (first: event 6 of calls.h5) is silent")
def silent_events(folder):
    audio = folder.noise()
    audio[6], audio[8] = 0, 0.25
    return folder.spoilt(audio)


@malformed(2, "silent-events", "20 of 20 events")
def silence_only(folder):
    return folder.spoilt(folder.noise() * 0, dtype="int16")


@malformed(0, "dead-microphones", "microphones [2]", "all 20 events")
def a_dead_microphone(folder):
    audio = folder.noise()
    audio[..., 2] = 12
    return folder.spoilt(audio, dtype="int16")


@malformed(0, "partly-dead-microphones", "microphones [1]", "8 of 20 events (first: event 12 of")
def a_microphone_that_dies(folder):
    audio = folder.noise()
    audio[12:, :, 1] = 0
    return folder.spoilt(audio)


@malformed(0, "duplicate-microphones", "0 and 3", "the same audio in all 20 events")
def a_microphone_twice(folder):
    audio = folder.noise()
    audio[..., 3] = audio[..., 0]
    return folder.spoilt(audio)


@malformed(0, "opposite-microphones", "1 and 2", "opposite sign")
def a_microphone_twice_with_opposite_sign(folder):
    audio = folder.noise()
    audio[..., 2] = -audio[..., 1]
    return folder.spoilt(audio, dtype="int16")


@malformed(0, "clipped-events", "2 of 20 events (first: event 4 of calls.h5)", "32767", "[1, 2]")
def clipped_integers(folder):
    audio = folder.noise()
    time = np.arange(LENGTH)
    for event, microphone in ((4, 1), (11, 2)):
        audio[event, :, microphone] = np.clip(60000 * np.sin(time / 5), -32768, 32767)
    return folder.spoilt(audio, dtype="int16", lengths=[LENGTH] * EVENTS)


@malformed(0, "clipped-events", "1 of 20 events (first: event 13 of calls.h5)", "[0] ")
def clipped_floats(folder):
    audio = folder.noise()
    audio[13, :, 0] = np.clip(5000 * np.sin(np.arange(LENGTH) / 5), -4321.5, 4321.5)
    return folder.spoilt(audio)


@malformed(0, "offset", "microphones [3]", "5.0 standard deviations")
def a_microphone_with_an_offset(folder):
    audio = folder.noise()
    audio[..., 3] += 5000
    return folder.spoilt(audio)


@malformed(0, "microphone-levels", "0 by -40 dB")
def a_microphone_that_is_far_quieter(folder):
    audio = folder.noise()
    audio[..., 0] /= 100
    return folder.spoilt(audio)


@malformed(0, "quiet-events", "1 of 20 events (first: event 17 of calls.h5)", "nearly silent")
def an_event_that_is_nearly_silent(folder):
    audio = folder.noise()
    audio[17] /= 1e5
    return folder.spoilt(audio)


@malformed(0, "few-steps", "20 of 20 events", "16 steps of the integers")
def integers_of_a_few_steps(folder):
    return folder.spoilt(folder.noise() / 1000, dtype="int16")


@malformed(2, "huge-audio", "20 of 20 events", "byte order")
def audio_of_another_byte_order(folder):
    # 0x4BXXXXXX read backwards: exponents all over the range of float32, none of them all ones.
    bits = folder.random.integers(0, 0x7F, (EVENTS * LENGTH, MICROPHONES, 4), dtype=np.uint8)
    audio = bits.reshape(EVENTS * LENGTH, -1).view("<f4")
    return folder.file(audio=audio)


@malformed(0, "duplicate-events", "2 of 20 events", "event 2 of calls.h5 and event 9 of calls.h5")
def events_that_are_there_twice(folder):
    audio = folder.noise()
    audio[9], audio[15] = audio[2], audio[4]
    return folder.spoilt(audio)


@malformed(0, "duplicate-events", "1 of 40 events", "event 3 of a.h5 and event 0 of b.h5")
def an_event_that_is_in_two_files(folder):
    first, second = folder.noise(), folder.noise()
    second[0] = first[3]
    return [folder.spoilt(first, "a.h5"), folder.spoilt(second, "b.h5", seed=1)]


@malformed(
    2,
    "leaked-events",
    "1 recordings are in train_set and in test_set",
    "event 3 of train_set.h5 and event 5 of test_set.h5",
    others=("duplicate-events",),
)
def an_event_that_is_in_training_and_test(folder):
    audio = [folder.noise() for _ in range(3)]
    audio[2][5] = audio[0][3]
    for number, name in enumerate(("train_set", "val_set", "test_set")):
        folder.spoilt(audio[number], f"parts/{name}.h5", seed=number)
    return folder / "parts"


@malformed(0, "one-microphone", "cannot tell where a call came from")
def a_single_microphone(folder):
    return folder.file(num_microphones=1)


@malformed(0, "nan-onsets", "onsets_s of 2 of 20 events of calls.h5", "first: event 4")
def events_without_onset(folder):
    onsets = np.arange(20.0)
    onsets[[4, 9]] = np.nan
    return folder.file(onsets_s=onsets)


@malformed(2, "events-file", "kept.npy", "20 events, 0 to 19")
def an_index_file_of_other_data(folder):
    np.save(folder / "kept.npy", np.arange(30))
    return [folder.file(), "--events", folder / "kept.npy"]


# Splits.


@malformed(2, "split-missing", "val_set.npy", "does not exist")
def a_split_without_validation(folder):
    return folder.split(val_set=None)


@malformed(2, "split-unreadable", "val_set.npy", "cannot be read as an array")
def a_part_that_is_no_array(folder):
    return folder.split(val_set=b"14, 15, 16")


@malformed(2, "split-unreadable", "train_set.npy", "cannot be read as an array")
def a_part_that_is_cut_short(folder):
    arguments = folder.split()
    os.truncate(folder / "split/train_set.npy", 150)
    return arguments


@malformed(2, "split-not-1d", "test_set.npy", "shape (3, 1)")
def a_part_of_two_axes(folder):
    return folder.split(test_set=np.arange(17, 20)[:, None])


@malformed(2, "split-not-integer", "train_set.npy", "float64")
def a_part_of_floats(folder):
    return folder.split(train_set=np.arange(14.0))


@malformed(2, "split-not-integer", "train_set.npy", "mask of 20 booleans", "shape (19,)")
def a_mask_of_other_data(folder):
    return folder.split(train_set=np.arange(19) < 14)


@malformed(2, "split-empty", "val_set.npy", "is empty")
def a_part_without_events(folder):
    return folder.split(val_set=np.zeros(0, int))


@malformed(2, "split-out-of-range", "test_set.npy", "2 of its 4 places", "0 to 19", "first is 20")
def a_part_of_events_that_are_not_there(folder):
    return folder.split(test_set=np.array([18, 19, 20, -1]))


@malformed(2, "split-duplicates", "train_set.npy", "2 events more than once, the first 3")
def a_part_that_names_events_twice(folder):
    return folder.split(train_set=np.array([0, 1, 2, 3, 3, 4, 4, 4]))


@malformed(2, "split-overlap", "2 events are in train_set and in val_set", "first 14")
def parts_that_overlap(folder):
    return folder.split(train_set=np.arange(16))


@malformed(0, "group-leak", "1 groups", "(first: 3)", "train_set and in val_set")
def a_group_on_both_sides(folder):
    groups = np.array([0] * 4 + [1] * 4 + [2] * 4 + [3] * 4 + [4] * 1 + [5] * 3)
    return folder.split(groups=groups)


@malformed(2, "split-overlap", others=("split-duplicates", "split-out-of-range"))
def everything_that_is_wrong_with_a_split(folder):
    return folder.split(
        train_set=np.array([0, 1, 2, 2]), val_set=np.array([2, 3]), test_set=np.array([99])
    )


# What files say of themselves.


@malformed(2, "checksum", "copy.h5", "checksum")
def a_file_changed_after_it_was_written(folder):
    path = write_events(folder / "copy.h5", open_events(folder.file()))
    with h5py.File(path, "r+") as file:
        file["audio"][4000, 2] += 1
    return path


@malformed(2, "stale-statistics", "copy.h5", "20 of 20 events", others=("checksum",))
def audio_scaled_after_its_statistics_were_written(folder):
    path = write_events(folder / "copy.h5", open_events(folder.file()))
    with h5py.File(path, "r+") as file:
        file["audio"][:] *= 2
    return path
