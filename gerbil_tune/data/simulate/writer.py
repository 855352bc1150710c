"""A simulation as a file: lay it out, render into it in parallel, name it when it is complete."""

import json
import os
import shutil
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from gerbil_tune import __version__
from gerbil_tune.data.cores import num_cores
from gerbil_tune.data.files.animals import Animals
from gerbil_tune.data.progress import progress_bar
from gerbil_tune.data.simulate.plan import draw_keypoints, event_generator, plan_event
from gerbil_tune.data.simulate.rooms import SimulationSpec
from gerbil_tune.data.simulate.wavs import WavCalls, find_wavs
from gerbil_tune.data.simulate.workers import RenderJob, render_all
from gerbil_tune.errors import ConfigError, GerbilTuneError
from gerbil_tune.units import ORIGIN, UNITS

_BYTES_A_SAMPLE = 4
_SPACE_FOR_THE_REST = 1 << 20


@dataclass(frozen=True)
class _Layout:
    """Everything in the file but the audio; N events, K keypoints."""

    starts: NDArray[np.int64]  # (N + 1,)
    locations_NKD_mm: NDArray[np.float32]
    snr_db: NDArray[np.float32]  # (N,)
    source_height_mm: NDArray[np.float32]  # (N,)
    animals: Animals | None


def simulate(
    spec: SimulationSpec,
    output: Path,
    *,
    num_events: int,
    seed: int,
    processes: int | None = None,
    show_progress: bool = True,
    overwrite: bool = False,
) -> None:
    """Simulate events and write them to an HDF5 file of the Gerbilizer layout.

    Datasets: ``vocalizations`` (total samples, C) float32, contiguous; ``len_idx`` (N+1,) int64;
    ``locations`` (N, 2) float32 in mm, or (N, 2, 2) and ``node_names`` for two keypoints; ``snr_db`` and
    ``source_height_mm`` (N,) float32; of several animals ``tracks`` (N, A, K, 2) and ``emitter`` (N,), which
    says who of them called. Root attributes: sample_rate_hz, arena_mm, microphones_mm, units,
    origin, and simulation, a JSON text of the spec, the seed and the package version.

    The same spec and seed give the same datasets for any number of processes, and event i is the same
    however many events there are. Each event goes to the disk as soon as it is rendered. The file gets
    its name when it is complete; an error or an interrupt removes what was written.

    Args:
        spec: The room and the ranges of the draws.
        output: The file to write; its folder is made where it does not exist.
        num_events: 1 or more.
        seed: 0 or more.
        processes: Worker processes; default one a core. Few events are rendered in this process.
        show_progress: Whether to report progress on standard error.
        overwrite: Whether an existing file is replaced.

    Raises:
        ConfigError: If an argument or a wav file is wrong, or the file cannot be written.
        GerbilTuneError: If a worker process dies or the disk fails on the way.
    """
    _check_numbers(num_events, seed, processes)
    _check_output(output, overwrite=overwrite)
    wavs = None if spec.wavs is None else find_wavs(spec.wavs, spec.room.sample_rate_hz)
    layout = _lay_out(spec, wavs, num_events, seed)
    _check_space(output, int(layout.starts[-1]) * len(spec.room.microphones_mm))
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        offset = _create_file(temporary, spec, layout, seed)
        job = RenderJob(spec, wavs, seed, temporary, offset)
        with (
            progress_bar(num_events, doing="simulating", show=show_progress) as advance,
            # Closed here, so that no worker still writes when the file is removed.
            closing(render_all(job, layout.starts, processes or num_cores())) as counts,
        ):
            for count in counts:
                advance(count)
        temporary.replace(output)
    except OSError as error:
        raise GerbilTuneError(
            f"{output} could not be written: {error.strerror or error}; nothing was kept"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _check_numbers(num_events: int, seed: int, processes: int | None) -> None:
    for name, value, lowest in (
        ("the number of events", num_events, 1),
        ("the seed", seed, 0),
        ("the number of processes", 1 if processes is None else processes, 1),
    ):
        if value < lowest:
            raise ConfigError(f"{name} must be {lowest} or more; received {value}")


def _check_output(output: Path, *, overwrite: bool) -> None:
    if output.is_dir():
        raise ConfigError(
            f"output {output} is a folder; name a file such as {output / 'events.h5'}"
        )
    if output.exists() and not overwrite:
        raise ConfigError(
            f"output {output} exists; choose another name or pass --force to replace it"
        )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"folder {output.parent} of the output cannot be made: {error.strerror}"
        ) from error
    if not os.access(output.parent, os.W_OK | os.X_OK):
        raise ConfigError(f"folder {output.parent} of the output is not writable; choose another")


def _check_space(output: Path, num_values: int) -> None:
    needed = num_values * _BYTES_A_SAMPLE + _SPACE_FOR_THE_REST
    free = shutil.disk_usage(output.parent).free
    if needed > free:
        raise ConfigError(
            f"output {output} needs {needed / 1e9:.1f} GB, and its disk has {free / 1e9:.1f} GB free;"
            " ask for fewer events or choose another disk"
        )


def _lay_out(spec: SimulationSpec, wavs: WavCalls | None, num_events: int, seed: int) -> _Layout:
    """Plan all events: some 40 microseconds each."""
    lengths = np.zeros(num_events, np.int64)
    locations = np.zeros((num_events, spec.keypoints, 2), np.float32)
    snr_db, height_mm = (np.zeros(num_events, np.float32) for _ in range(2))
    for event in range(num_events):
        plan = plan_event(spec, wavs, event_generator(seed, event))
        lengths[event] = plan.num_samples
        locations[event] = plan.keypoints_mm
        snr_db[event], height_mm[event] = plan.snr_db, plan.source_height_mm
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    animals = None if spec.animals == 1 else _place_animals(spec, locations, seed)
    return _Layout(starts, locations, snr_db, height_mm, animals)


def _place_animals(spec: SimulationSpec, callers_NKD: NDArray[np.float32], seed: int) -> Animals:
    """Tracks in which the caller of each event is one of several, in no order; the others are silent."""
    num_events = len(callers_NKD)
    tracks = np.zeros((num_events, spec.animals, *callers_NKD.shape[1:]), np.float32)
    emitters = np.zeros(num_events, np.int64)
    for event in range(num_events):
        # A generator of its own: the sound is the same whoever else is there.
        generator = np.random.default_rng((seed, event, spec.animals))
        tracks[event] = [draw_keypoints(spec, generator) for _ in range(spec.animals)]
        emitters[event] = generator.integers(spec.animals)
        tracks[event, emitters[event]] = callers_NKD[event]
    names = tuple(f"animal_{number}" for number in range(spec.animals))
    return Animals(tracks, names, emitters)


def _create_file(path: Path, spec: SimulationSpec, layout: _Layout, seed: int) -> int:
    """Write all but the audio, whose place is reserved; returns its offset in bytes."""
    room = spec.room
    num_events = len(layout.starts) - 1
    history = {
        "spec": spec.model_dump(mode="json"),
        "seed": seed,
        "num_events": num_events,
        "package_version": __version__,
    }
    with h5py.File(path, "x") as file:
        file["len_idx"] = layout.starts
        locations = layout.locations_NKD_mm
        file["locations"] = locations[:, 0] if spec.keypoints == 1 else locations
        if spec.keypoints > 1:
            file["node_names"] = np.array([name.encode() for name in spec.keypoint_names])
        for name, values in layout.animals.columns() if layout.animals is not None else ():
            file[name] = values
        file["snr_db"] = layout.snr_db
        file["source_height_mm"] = layout.source_height_mm
        file.attrs["sample_rate_hz"] = room.sample_rate_hz
        file.attrs["arena_mm"] = np.array(room.size_mm)
        file.attrs["microphones_mm"] = np.array(room.microphones_mm)
        file.attrs["units"] = UNITS
        file.attrs["origin"] = ORIGIN
        file.attrs["simulation"] = json.dumps(history)
        return _reserve(file, "vocalizations", (int(layout.starts[-1]), len(room.microphones_mm)))


def _reserve(file: h5py.File, name: str, shape: tuple[int, int]) -> int:
    """Make a contiguous float32 dataset whose bytes others will write; returns their offset."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)  # Every byte is written once, by a worker.
    properties.set_obj_track_times(False)  # Same seed, same file.
    space = h5py.h5s.create_simple(shape)
    dataset = h5py.h5d.create(file.id, name.encode(), h5py.h5t.IEEE_F32LE, space, properties)
    return int(dataset.get_offset())
