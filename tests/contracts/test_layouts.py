"""Every layout and storage that the field has: opened as it is, read as what was written."""

import h5py
import hdf5plugin
import numpy as np
import pytest

from gerbil_tune.config.schema import DataConfig
from gerbil_tune.data.batches import EvaluationBatches
from gerbil_tune.data.events import open_events, recording_setup
from gerbil_tune.data.files.formats import open_event_file
from gerbil_tune.errors import DatasetError

STORAGES = {
    "contiguous": {},
    "chunked": {"chunks": (100, 4)},
    "gzip": {"chunks": (64, 2), "compression": "gzip", "shuffle": True},
    "lzf": {"chunks": True, "compression": "lzf"},
    "blosc": dict(hdf5plugin.Blosc(cname="lz4")),
    "zstd": dict(hdf5plugin.Zstd()),
}
KEYPOINTS = ("nose", "left ear", "tail")


def audio_and_lengths(dtype, equal=False):
    generator = np.random.default_rng(1)
    lengths = [250] * 8 if equal else [120, 300, 1, 250, 80, 301, 40, 77]
    audio = (generator.standard_normal((sum(lengths), 4)) * 1000).astype(dtype)
    return audio, lengths


@pytest.mark.parametrize("layout", ["gerbilizer", "vocalocator", "rir", "fixed"])
@pytest.mark.parametrize("dtype", ["int16", "int32", "float32", "float64"])
def test_layouts_and_types(make_event_file, layout, dtype):
    audio, lengths = audio_and_lengths(dtype, equal=layout == "fixed")
    events = open_events(make_event_file(layout=layout, audio=audio, lengths=lengths, dtype=dtype))
    assert events.files[0].layout == layout
    assert events.is_impulse_response == (layout == "rir")
    assert events.files[0].dtype == dtype
    assert events.lengths.tolist() == lengths
    starts = np.cumsum([0, *lengths])
    for i in range(len(lengths)):
        np.testing.assert_array_equal(events.read(i), audio[starts[i] : starts[i + 1]])


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("layout", ["gerbilizer", "vocalocator", "rir", "fixed"])
def test_storages(make_event_file, layout, storage):
    options = dict(STORAGES[storage])
    if layout == "fixed" and "chunks" in options:
        options["chunks"] = (3, 2, 100)
    audio, lengths = audio_and_lengths("int16", equal=layout == "fixed")
    path = make_event_file(
        layout=layout,
        audio=audio,
        lengths=lengths,
        dtype="int16",
        keypoints=KEYPOINTS,
        audio_options=options,
    )
    file = open_event_file(path)
    expected = "(n, C, T)" if layout == "fixed" else storage
    assert file.storage == expected
    assert file.path == path
    assert (file.audio_path == path) == (expected == "contiguous")
    np.testing.assert_array_equal(file.audio(), audio)
    plain = open_event_file(
        make_event_file(
            "plain.h5", audio=audio, lengths=lengths, dtype="int16", keypoints=KEYPOINTS
        )
    )
    assert file.fingerprint() == plain.fingerprint()
    (batch,) = EvaluationBatches(open_events(path), crop_length=400, per_worker_batch_size=8)
    assert batch.audio_BTC.shape == (8, max(lengths), 4)


@pytest.mark.parametrize(
    ("keypoints", "num_axes", "shape"),
    [
        (None, 2, (8, 1, 2)),
        (None, 3, (8, 1, 3)),
        (KEYPOINTS, 2, (8, 3, 2)),
        (KEYPOINTS, 3, (8, 3, 3)),
    ],
)
def test_shapes_of_locations(make_event_file, keypoints, num_axes, shape):
    path = make_event_file(num_events=8, keypoints=keypoints, num_axes=num_axes)
    events = open_events(path)
    assert events.locations_mm.shape == shape
    with h5py.File(path) as file:
        np.testing.assert_allclose(
            events.locations_mm.reshape(file["locations"].shape), file["locations"], rtol=1e-6
        )


def test_keypoints_come_in_the_order_asked(make_event_file):
    events = open_events(make_event_file(num_events=5, keypoints=KEYPOINTS))
    chosen = events.select_keypoints(("tail", "nose"))
    np.testing.assert_array_equal(chosen.locations_mm, events.locations_mm[:, [2, 0]])
    with pytest.raises(DatasetError, match=r"'whisker'.*valid: nose, left ear, tail"):
        events.select_keypoints(("nose", "whisker"))


def test_several_files_of_different_lengths_and_storages_are_one_set(make_event_file):
    audio, lengths = audio_and_lengths("float32")
    paths = [
        make_event_file("a.h5", audio=audio, lengths=lengths, layout="vocalocator"),
        make_event_file("b.h5", num_events=3, audio_options=STORAGES["gzip"]),
        make_event_file("c.h5", layout="fixed", lengths=[99] * 4),
    ]
    events = open_events(paths)
    assert events.lengths.tolist()[:8] == lengths
    assert len(events) == 15
    assert recording_setup(events, DataConfig()).num_microphones == 4
    np.testing.assert_array_equal(events.read(12), open_event_file(paths[2]).read(1))


def test_impulse_responses_and_recordings_do_not_mix(make_event_file):
    paths = [make_event_file("a.h5"), make_event_file("b.h5", layout="rir")]
    with pytest.raises(DatasetError, match="kind of events: impulse responses"):
        open_events(paths)


def test_onsets_and_event_ids_are_read(make_event_file):
    plain = make_event_file("a.h5", num_events=3, onsets_s=[0.5, 1.0, 9.0])
    with h5py.File(plain, "a") as file:
        file["event_ids"] = [7, 8, 9]
    events = open_events([plain, make_event_file("b.h5", num_events=2)])
    np.testing.assert_array_equal(events.onsets_s, [0.5, 1.0, 9.0, np.nan, np.nan])
    assert events.event_ids is None
    assert open_events(plain).event_ids.tolist() == [7, 8, 9]


def test_a_filter_that_nobody_knows_is_named(make_event_file):
    path = make_event_file(audio_options=dict(hdf5plugin.Zstd()))
    with h5py.File(path, "r+") as file:
        audio = file["vocalizations"]
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((10, 4))
        properties.set_filter(305, h5py.h5z.FLAG_OPTIONAL)
        del file["vocalizations"]
        space = h5py.h5s.create_simple(audio.shape)
        h5py.h5d.create(file.id, b"vocalizations", h5py.h5t.NATIVE_FLOAT, space, properties)
    with pytest.raises(DatasetError, match=r"filter 305, which is not known here.*h5repack"):
        open_event_file(path)
