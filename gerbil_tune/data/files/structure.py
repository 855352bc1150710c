"""What an HDF5 file of events holds besides the audio itself, read and checked.

    gerbilizer    vocalizations (total, C)   len_idx (n+1,)          locations (n, 2)
    vocalocator   audio (total, C)           length_idx (n+1,)       locations (n, D) or (n, K, D)
    fixed         vocalizations (n, C, T)    no index                locations likewise
    rir           rir (total, C)             rir_length_idx (n+1,)   impulse responses in place of audio

Event i is the samples [index[i], index[i+1]). Optional in all: ``node_names`` (K,) of the keypoints,
``group_ids`` or ``session_ids`` (n,) of integers, ``onsets_s`` (n,), ``event_ids`` (n,), tracks of several
animals (``animals``), and attributes of the file: sample_rate_hz, arena_mm, microphones_mm, units (of the
locations and tracks), origin.

Legend: n events, C microphones, T samples, K keypoints, D axes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import numpy.typing as npt

from gerbil_tune.data.files import attributes, columns
from gerbil_tune.data.files.animals import TRACKS, Animals, read_animals
from gerbil_tune.errors import DatasetError

Layout = Literal["gerbilizer", "vocalocator", "fixed", "rir"]
LAYOUTS: dict[Layout, tuple[str, str]] = {
    "gerbilizer": ("vocalizations", "len_idx"),
    "vocalocator": ("audio", "length_idx"),
    "rir": ("rir", "rir_length_idx"),
}
STATISTICS_DATASETS = ("event_mean", "event_sd")
CHECKSUM_ATTRIBUTE = "content_blake2b"
CONTIGUOUS = "contiguous"
_FILTERS = {
    h5py.h5z.FILTER_DEFLATE: "gzip",
    h5py.h5z.FILTER_SZIP: "szip",
    h5py.h5z.FILTER_LZF: "lzf",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32015: "zstd",
    32026: "blosc2",
}
_ORDINARY_FILTERS = (
    h5py.h5z.FILTER_SHUFFLE,
    h5py.h5z.FILTER_FLETCHER32,
    h5py.h5z.FILTER_NBIT,
    h5py.h5z.FILTER_SCALEOFFSET,
)
_MOST_MICROPHONES = 512


@dataclass(frozen=True, eq=False, kw_only=True)
class Contents:
    """All that a file of events states, but its audio.

    Attributes:
        layout: Whose dataset names the file has.
        num_microphones: C.
        dtype: Of the audio in the file, byte order included.
        total_samples: Samples of all audio.
        starts: int64 (n+1,); event i is the samples [starts[i], starts[i+1]).
        locations_mm: float32 (n, K, D) from the arena centre, or None.
        keypoints: Names of the K keypoints; empty where no locations, tracks or names are in the file.
        sample_rate_hz: Samples a second, None where the file does not say.
        arena_mm: Full widths of the arena, None where the file does not say.
        microphones_mm: (x, y, z) of each microphone, None where the file does not say.
        groups: int64 (n,), events of one number belong together; None where the file does not say.
        onsets_s: float64 (n,), when each event began in its session; None where the file does not say.
        event_ids: int64 (n,), the lab's numbers of the events; None where the file does not say.
        animals: Where several animals were, with the same keypoints; None where the file does not say.
    """

    layout: Layout
    num_microphones: int
    dtype: np.dtype[Any]
    total_samples: int
    starts: npt.NDArray[np.int64]
    locations_mm: npt.NDArray[np.float32] | None = None
    keypoints: tuple[str, ...] = ()
    sample_rate_hz: float | None = None
    arena_mm: tuple[float, ...] | None = None
    microphones_mm: tuple[tuple[float, float, float], ...] | None = None
    groups: npt.NDArray[np.int64] | None = None
    onsets_s: npt.NDArray[np.float64] | None = None
    event_ids: npt.NDArray[np.int64] | None = None
    animals: Animals | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Structure(Contents):
    """One file of events, described.

    Attributes:
        path: Absolute path.
        storage: How its audio is stored: ``contiguous`` can be mapped as it is; ``chunked``, ``gzip``,
            ``lzf``, ``blosc``, ..., and ``(n, C, T)`` of the fixed layout cannot.
        mean_NC: float32 (n, C), mean of each event and channel; None where the file does not say.
        sd_NC: float32 (n, C), standard deviation likewise.
        states_units: Whether the file says in which unit its locations are.
        stated_checksum: Checksum that the file states of its content, or None.
    """

    path: Path
    storage: str = CONTIGUOUS
    mean_NC: npt.NDArray[np.float32] | None = None
    sd_NC: npt.NDArray[np.float32] | None = None
    states_units: bool = False
    stated_checksum: str | None = None

    @property
    def num_events(self) -> int:
        """Events in the file."""
        return len(self.starts) - 1

    @property
    def is_impulse_response(self) -> bool:
        """Whether the events are impulse responses, to be convolved with sounds."""
        return self.layout == "rir"


def read_structure(path: Path, source: h5py.File) -> Structure:
    """Read and check everything but the audio.

    Raises:
        DatasetError: If a dataset is missing or has a wrong shape, type or content.
    """
    layout, audio_name = _find_layout(path, source)
    audio = source[audio_name]
    if layout == "fixed":
        num_microphones = audio.shape[1]
        starts = np.arange(len(audio) + 1, dtype=np.int64) * audio.shape[2]
        storage = "(n, C, T)"
    else:
        num_microphones = audio.shape[1]
        starts = columns.read_starts(
            path,
            source,
            LAYOUTS[layout][1],
            total_samples=audio.shape[0],
            num_microphones=num_microphones,
        )
        storage = _find_storage(path, audio_name, audio, source.filename)
    num_events = len(starts) - 1
    site = attributes.read_site(path, source, num_microphones=num_microphones)
    locations = columns.read_locations(path, source, num_events, site.mm_per_unit)
    animals = read_animals(path, source, num_events, site.mm_per_unit)
    counts = {} if locations is None else {"locations": locations.shape[1]}
    if animals is not None:
        counts[TRACKS] = animals.tracks_mm.shape[2]
    mean, sd = (
        columns.read_statistics(path, source, name, (num_events, num_microphones))
        for name in STATISTICS_DATASETS
    )
    checksum = source.attrs.get(CHECKSUM_ATTRIBUTE)
    return Structure(
        path=path,
        layout=layout,
        storage=storage,
        num_microphones=num_microphones,
        dtype=audio.dtype,
        total_samples=audio.shape[0] * (audio.shape[2] if layout == "fixed" else 1),
        starts=starts,
        locations_mm=locations,
        keypoints=columns.read_keypoints(path, source, counts),
        sample_rate_hz=site.sample_rate_hz,
        arena_mm=site.arena_mm,
        microphones_mm=site.microphones_mm,
        groups=columns.read_groups(path, source, num_events),
        onsets_s=columns.read_column(path, source, "onsets_s", num_events, "iuf", np.float64),
        event_ids=columns.read_column(path, source, "event_ids", num_events, "iu", np.int64),
        animals=animals,
        mean_NC=mean if sd is not None else None,
        sd_NC=sd if mean is not None else None,
        states_units=site.states_units,
        stated_checksum=checksum if isinstance(checksum, str) else None,
    )


def audio_dataset(source: h5py.File, layout: Layout) -> h5py.Dataset:
    """The dataset of the audio of an open file whose layout is known."""
    if layout == "fixed":
        return next(source[name] for name in ("vocalizations", "audio") if name in source)
    return source[LAYOUTS[layout][0]]


def _find_layout(path: Path, source: h5py.File) -> tuple[Layout, str]:
    """Return the layout and the name of the dataset of the audio, which is checked."""
    found = [layout for layout, (audio, _) in LAYOUTS.items() if audio in source]
    ordinary = [LAYOUTS[layout] for layout in LAYOUTS if layout != "rir"]
    both = " or ".join(f"{audio!r} with {index!r}" for audio, index in ordinary)
    if len(found) > 1:
        names = " and ".join(repr(LAYOUTS[layout][0]) for layout in found)
        raise DatasetError(
            f"{path}: has the audio of several layouts ({names}), but must have one: {both}; delete the "
            "other, or keep it in a file of its own"
        )
    if not found:
        names = ", ".join(sorted(source)) or "none"
        raise DatasetError(f"{path}: needs the datasets {both}, but has: {names}")
    audio_name, index_name = LAYOUTS[found[0]]
    audio = source[audio_name]
    if not isinstance(audio, h5py.Dataset):
        raise DatasetError(
            f"{path}: {audio_name!r} is a group, but must be a dataset (samples, microphones)"
        )
    _check_audio(path, audio_name, audio, has_index=index_name in source)
    return ("fixed" if audio.ndim == 3 else found[0]), audio_name


def _check_audio(path: Path, name: str, audio: h5py.Dataset, *, has_index: bool) -> None:
    """Raise unless this has a shape and type that audio can have, and is not empty."""
    if audio.ndim == 3:
        _check_fixed(path, name, audio, has_index=has_index)
    elif audio.ndim != 2:
        raise DatasetError(
            f"{path}: dataset {name!r} has shape {audio.shape}, but must be (samples, microphones); "
            "one column a microphone"
        )
    elif audio.shape[1] > _MOST_MICROPHONES and audio.shape[1] > audio.shape[0]:
        raise DatasetError(
            f"{path}: dataset {name!r} has shape {audio.shape}, which would be {audio.shape[1]} "
            "microphones; it must be (samples, microphones): transpose it"
        )
    if audio.size == 0 or audio.shape is None:
        raise DatasetError(
            f"{path}: dataset {name!r} has shape {audio.shape}: there is no audio in it"
        )
    if audio.dtype.kind not in "if" or audio.dtype.itemsize > 8:
        raise DatasetError(
            f"{path}: dataset {name!r} has type {audio.dtype}, but must be of signed integers or floats of "
            "64 bits or less"
        )


def _check_fixed(path: Path, name: str, audio: h5py.Dataset, *, has_index: bool) -> None:
    """Raise unless a 3-D dataset can be (events, microphones, samples)."""
    if has_index:
        raise DatasetError(
            f"{path}: dataset {name!r} has shape {audio.shape} and an index beside it; with an index it "
            "must be (samples, microphones), without one (events, microphones, samples)"
        )
    _, channels, samples = audio.shape
    if channels > min(samples, _MOST_MICROPHONES):
        raise DatasetError(
            f"{path}: dataset {name!r} has shape {audio.shape}, but must be (events, microphones, samples) "
            f"where there is no index, and {channels} microphones of {samples} samples are not plausible; "
            "swap the last two axes"
        )


def _find_storage(path: Path, name: str, audio: h5py.Dataset, source_name: str) -> str:
    """Say how 2-D audio lies in the file, or raise where it does not lie in it."""
    if audio.external or audio.is_virtual or audio.file.filename != source_name:
        raise DatasetError(
            f"{path}: dataset {name!r} lies in other files; put it into this one: "
            f"h5repack -l CONTI -f NONE {path.name} whole_{path.name}"
        )
    if audio.chunks is not None:
        return _find_filter(path, name, audio)
    offset = audio.id.get_offset()
    if audio.id.get_create_plist().get_layout() == h5py.h5d.COMPACT:
        return "compact"
    if offset is None:
        raise DatasetError(f"{path}: dataset {name!r} was never written; record or copy it again")
    if offset + audio.size * audio.dtype.itemsize > path.stat().st_size:
        raise DatasetError(f"{path}: is shorter than dataset {name!r} says; copy it again")
    return CONTIGUOUS


def _find_filter(path: Path, name: str, audio: h5py.Dataset) -> str:
    """Name the compression of a chunked dataset, and make sure that it can be undone."""
    properties = audio.id.get_create_plist()
    storage = "chunked"
    for number in range(properties.get_nfilters()):
        code = properties.get_filter(number)[0]
        if code in _ORDINARY_FILTERS:
            continue
        storage = _FILTERS.get(code, f"filter {code}")
        if not h5py.h5z.filter_avail(code):
            import hdf5plugin  # noqa: F401  (registers the filters that HDF5 does not bring)
        if not h5py.h5z.filter_avail(code):
            raise DatasetError(
                f"{path}: dataset {name!r} is compressed with HDF5 filter {code}, which is not known here; "
                f"write it without: h5repack -f NONE {path.name} plain_{path.name}"
            )
    return storage
