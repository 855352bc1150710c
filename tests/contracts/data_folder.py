"""A folder in which good and malformed data files are made."""

import h5py
import numpy as np

from tests.conftest import write_event_file

LENGTH, EVENTS, MICROPHONES = 300, 20, 4
ARENA_MM = (572.0, 356.0)


class Folder:
    """A folder in which a case makes its files."""

    def __init__(self, path):
        self.path = path
        self.random = np.random.default_rng(7)

    def __truediv__(self, name):
        return self.path / name

    def file(self, name="calls.h5", **options):
        options = {"lengths": [LENGTH] * EVENTS, **options}
        return write_event_file(self.path / name, **options)

    def noise(self, num_events=EVENTS):
        """Audio (events, samples, microphones) that can be spoilt."""
        return self.random.standard_normal((num_events, LENGTH, MICROPHONES)) * 1000

    def spoilt(self, audio_NTC, name="calls.h5", **options):
        num_events, length, num_microphones = audio_NTC.shape
        audio = audio_NTC.reshape(-1, num_microphones)
        options = {"lengths": [length] * num_events, "audio": audio, **options}
        return write_event_file(self.path / name, num_microphones=num_microphones, **options)

    def places(self, num_events=EVENTS, num_axes=2):
        """Locations all over the arena, from its centre in mm."""
        half = np.array([286.0, 178.0, 150.0])[:num_axes]
        places = self.random.uniform(-half, half, (num_events, num_axes))
        places[:, 2:] += 150
        places[0, :2], places[1, :2] = (-280, -170), (280, 170)
        return places

    def skeleton(self):
        """Locations of three keypoints some mm apart, (events, 3, 2)."""
        return self.places()[:, None] * 0.9 + self.random.normal(0, 3, (EVENTS, 3, 2))

    def edited(self, path, name, values):
        """Replace a dataset of a file; None deletes it."""
        with h5py.File(path, "r+") as file:
            if name in file:
                del file[name]
            if values is not None:
                file[name] = values
        return path

    def split(self, name="split", groups=None, **parts):
        """Index files; by default 14, 3 and 3 of 20 events, or other arrays by name."""
        data = self.file(groups=groups)
        folder = self.path / name
        folder.mkdir()
        default = {
            "train_set": np.arange(14),
            "val_set": np.arange(14, 17),
            "test_set": np.arange(17, 20),
        }
        for part, places in {**default, **parts}.items():
            if isinstance(places, bytes):
                (folder / f"{part}.npy").write_bytes(places)
            elif places is not None:
                np.save(folder / f"{part}.npy", places)
        return [data, "--split", folder]
