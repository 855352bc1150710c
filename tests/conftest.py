"""Fixtures for all tests."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# Before torch is imported, here and in the processes that tests start: several threads on small tensors
# cost far more than they gain where other processes want the cores too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# In the background of a shell Ctrl-C is ignored, by the tests and by all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import h5py
import numpy as np
import pytest

pytest_plugins = ["tests.faults.fault_table"]

LAYOUTS = {
    "gerbilizer": ("vocalizations", "len_idx"),
    "vocalocator": ("audio", "length_idx"),
    "rir": ("rir", "rir_length_idx"),
    "fixed": ("vocalizations", None),
}


def write_event_file(
    path: Path,
    *,
    layout: str = "gerbilizer",
    num_events: int = 12,
    lengths: tuple[int, int] | Sequence[int] = (300, 600),
    num_microphones: int = 4,
    dtype: Any = np.float32,
    keypoints: Sequence[str] | None = None,
    num_axes: int = 2,
    locations: Any = "random",
    sample_rate_hz: float | None = 125_000.0,
    arena_mm: Sequence[float] | None = (572.0, 356.0),
    microphones_mm: Any = None,
    groups: Any = None,
    group_dataset: str = "group_ids",
    onsets_s: Any = None,
    attributes: Mapping[str, Any] | None = None,
    audio: Any = None,
    audio_options: Mapping[str, Any] | None = None,
    file_options: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Path:
    """Write a file of events of noise at random places; see the fixture ``make_event_file``."""
    generator = np.random.default_rng(seed)
    if isinstance(lengths, tuple) and len(lengths) == 2:
        lengths = generator.integers(lengths[0], lengths[1], num_events, endpoint=True).tolist()
    num_events = len(lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    if audio is None:
        audio = generator.standard_normal((starts[-1], num_microphones)) * 1000
    if isinstance(locations, str):
        half = np.array([*(arena_mm or (572.0, 356.0)), 300.0][:num_axes]) / 2
        locations = generator.uniform(-half, half, (num_events, len(keypoints or "n"), num_axes))
        locations[..., 2:] += half[2:]  # z is counted from the floor
        if keypoints is None:
            locations = locations[:, 0]
    audio_name, index_name = LAYOUTS[layout]
    path.parent.mkdir(parents=True, exist_ok=True)
    audio = np.asarray(audio).astype(dtype)
    if layout == "fixed":
        audio = audio.reshape(num_events, lengths[0], -1).transpose(0, 2, 1)
    with h5py.File(path, "w", **(file_options or {})) as file:
        file.create_dataset(audio_name, data=audio, **(audio_options or {}))
        if index_name is not None:
            file[index_name] = starts
        optional = {"locations": locations, group_dataset: groups, "onsets_s": onsets_s}
        for name, values in optional.items():
            if values is not None:
                file[name] = values
        if keypoints is not None:
            file["node_names"] = np.array([name.encode() for name in keypoints])
        stated = {
            "sample_rate_hz": sample_rate_hz,
            "arena_mm": arena_mm,
            "microphones_mm": microphones_mm,
            **(attributes or {}),
        }
        for name, value in stated.items():
            if value is not None:
                file.attrs[name] = value
    return path


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests leave the user's cache alone; processes that they start inherit this."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GERBIL_TUNE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def make_event_file(tmp_path: Path) -> Callable[..., Path]:
    """Factory of small synthetic files of events in the test's folder.

    ``make_event_file("calls.h5", layout="vocalocator", num_events=20, lengths=(300, 600), dtype="int16",
    num_microphones=4, keypoints=("nose", "head"), num_axes=3, groups=[...], sample_rate_hz=None, seed=1)``
    returns the path. The name may have folders (``"data/train_set.h5"``). Layouts: gerbilizer, vocalocator,
    rir, and fixed (n, C, T), whose events must be of one length.

    lengths: (low, high) or a list with the length of each event. locations: an array in mm, None for a
    file without, or by default random ones inside the arena: (n, D) without ``keypoints``, (n, K, D) with
    them. audio: an array in place of the noise. attributes: further attributes of the file (units, origin).
    audio_options and file_options go to h5py (``{"chunks": True, "compression": "gzip"}``).
    """

    def make(name: str = "events.h5", **options: Any) -> Path:
        return write_event_file(tmp_path / name, **options)

    return make


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What is brought to the disk from here on, in this order: paths at the time."""
    paths: list[Path] = []
    flush = os.fsync

    def noted(descriptor: int) -> None:
        paths.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    return paths


def write_bundle(
    root: Path, setup: Any = None, *, temperature: float = 1.0, seed: int = 0, **sections: Any
) -> Path:
    """Write a bundle of a small network with random weights; see the fixture ``make_bundle``."""
    import torch

    from gerbil_tune.config.architectures import GccNetConfig, LagEncoderConfig
    from gerbil_tune.config.schema import ExperimentConfig
    from gerbil_tune.geometry import RecordingSetup
    from gerbil_tune.models.bundle import WEIGHTS, save_bundle, save_weights, weights_name
    from gerbil_tune.models.calibrated import Calibration
    from gerbil_tune.models.localizer import Localizer

    small = GccNetConfig(lags=LagEncoderConfig(num_channels=8, num_blocks=2, hidden=16))
    config = ExperimentConfig(**{"model": small, **sections})
    setup = setup or RecordingSetup(4, 125_000.0, (572.0, 356.0))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        weights = Localizer(config, setup).state_dict()
    folder = root / "weights"
    folder.mkdir(parents=True, exist_ok=True)
    for which in WEIGHTS:
        save_weights(folder / weights_name(which), weights)
    return save_bundle(
        root / "trained_models",
        config=config,
        setup=setup,
        weights_folder=folder,
        metrics={"validation/error_mm": 100.0},
        calibration=Calibration(temperature),
        provenance={"data_fingerprint": "0" * 64},
    )


@pytest.fixture(scope="session")
def make_bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Factory of bundles of a small network with random weights, in a folder of their own.

    ``make_bundle(setup, temperature=1.5, seed=1, data=DataConfig(...))`` returns the bundle's folder.
    By default the setup is 4 microphones at 125 kHz in an arena of 572 mm by 356 mm.
    """

    def make(setup: Any = None, **options: Any) -> Path:
        return write_bundle(tmp_path_factory.mktemp("bundle"), setup, **options)

    return make


@pytest.fixture(scope="session")
def mlflow_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """URI of one MLflow store for all tests, for it takes seconds to make: use names of your own in it."""
    return f"sqlite:///{tmp_path_factory.mktemp('store with space')}/mlflow.db"
