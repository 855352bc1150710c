"""Good data of every layout, of which ``gerbil-tune data check`` has nothing to say."""

import hdf5plugin
import numpy as np

from gerbil_tune.data.events import open_events
from gerbil_tune.data.files.writer import write_events
from tests.contracts.data_folder import ARENA_MM, EVENTS, LENGTH, MICROPHONES

GOOD = {}


def good(build):
    GOOD[build.__name__] = build
    return build


def compressed(**filters):
    def build(folder):
        return folder.file(audio_options={"chunks": (1000, MICROPHONES), **filters})

    return build


GOOD.update(
    {
        "gerbilizer": lambda folder: folder.file(),
        "vocalocator": lambda folder: folder.file(layout="vocalocator", dtype="int16"),
        "int32": lambda folder: folder.file(dtype="int32"),
        "float64": lambda folder: folder.file(dtype="float64"),
        "big endian": lambda folder: folder.file(dtype=">i2"),
        "24 microphones": lambda folder: folder.file(num_microphones=24),
        "chunked": compressed(),
        "gzip": compressed(compression="gzip", shuffle=True),
        "lzf": compressed(compression="lzf"),
        "blosc": compressed(**hdf5plugin.Blosc()),
        "zstd": compressed(**hdf5plugin.Zstd()),
        "fixed": lambda folder: folder.file(layout="fixed"),
        "user block": lambda folder: folder.file(file_options={"userblock_size": 512}),
        "one event": lambda folder: folder.file(lengths=[300]),
        "unlabelled": lambda folder: folder.file(locations=None),
        "units in metres": lambda folder: folder.file(
            locations=folder.places() * 1e-3, attributes={"units": "m"}
        ),
    }
)


@good
def keypoints(folder):
    return folder.file(locations=folder.skeleton(), keypoints=["nose", "left ear", "right ear"])


@good
def three_axes(folder):
    return folder.file(locations=folder.places(num_axes=3), arena_mm=(*ARENA_MM, 300.0))


@good
def keypoints_of_three_axes(folder):
    nose = folder.places(num_axes=3)
    places = np.stack([nose * 0.9, nose * 0.9 + 20], axis=1)
    return folder.file(locations=places, keypoints=["nose", "tail"], arena_mm=(*ARENA_MM, 300.0))


@good
def some_of_the_keypoints(folder):
    places = folder.skeleton()
    places[:, 2] = np.nan
    path = folder.file(locations=places, keypoints=["nose", "ear", "tail"])
    return [path, "--set", "data/keypoints=[ear, nose]"]


@good
def several_files(folder):
    return [
        folder.file("a.h5", dtype="int16"),
        folder.file("b.h5", dtype="int16", layout="vocalocator", seed=1),
        folder.file("c.h5", dtype="int32", seed=2),
    ]


@good
def a_folder_of_three_parts(folder):
    for number, name in enumerate(("train_set", "val_set", "test_set")):
        folder.file(f"parts/{name}.h5", groups=np.arange(20) // 5 + 10 * number, seed=number)
    return folder / "parts"


@good
def groups_and_onsets(folder):
    return folder.file(
        groups=np.arange(20) // 5, group_dataset="session_ids", onsets_s=np.arange(20) * 1.5
    )


@good
def a_split_by_group(folder):
    return folder.split(groups=np.array([0] * 7 + [1] * 7 + [2] * 3 + [3] * 3))


@good
def a_split_by_masks(folder):
    return folder.split(train_set=np.arange(20) < 14, val_set=np.isin(np.arange(20), [14, 15]))


@good
def a_folder_with_its_indices(folder):
    folder.split("indices")
    return folder.path


@good
def the_good_events_of_a_bad_file(folder):
    audio = folder.noise()
    audio[3, 5, 0], audio[7] = np.nan, 0
    np.save(folder / "kept.npy", np.setdiff1d(np.arange(20), [3, 7]))
    return [folder.spoilt(audio), "--events", folder / "kept.npy"]


@good
def a_file_with_a_checksum(folder):
    return write_events(folder / "copy.h5", open_events(folder.file(dtype="int16")))


@good
def calls_in_padded_silence(folder):
    """Each call has its own length, pause and loudness, on zeros."""
    audio = np.zeros((EVENTS, 3 * LENGTH, MICROPHONES))
    for event in audio:
        start, length = folder.random.integers(50, 300), folder.random.integers(100, 500)
        loud = 10 ** folder.random.uniform(-1, 0)
        tone = np.sin(2 * np.pi * folder.random.uniform(0.02, 0.4) * np.arange(length))
        gains = folder.random.uniform(0.3, 1, MICROPHONES)
        event[start : start + length] = 30000 * loud * tone[:, None] * gains
    return folder.spoilt(audio, dtype="int16")


@good
def slow_waves_in_integers(folder):
    """Hum, rounded: its crests stay at one number for many samples."""
    time = np.arange(4 * LENGTH)
    audio = [
        np.stack(
            [folder.random.uniform(90, 110) * np.sin(time / 300 + phase) for phase in range(4)], 1
        )
        for _ in range(EVENTS)
    ]
    return folder.spoilt(np.stack(audio), dtype="int16")


@good
def impulse_responses(folder):
    time = np.arange(1000)
    audio = folder.noise(EVENTS).reshape(-1)[: EVENTS * 1000]
    audio = (
        folder.random.standard_normal((EVENTS, 1000, MICROPHONES)) * np.exp(-time / 100)[:, None]
    )
    return folder.spoilt(audio, layout="rir")


@good
def simulated(folder):
    from gerbil_tune.data import simulate

    for name in ("e1", "e3"):
        spec = simulate.make_spec(simulate.PRESETS[name], keypoints=2, duration_ms=(5.0, 10.0))
        path = folder / f"{name}.h5"
        simulate.simulate(spec, path, num_events=10, seed=0, processes=1, show_progress=False)
    return folder / "e1.h5"
