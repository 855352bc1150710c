"""Files of predictions.

    /predictions      float32 (n, 2), mm from the arena's centre; (n, K, D) with several keypoints or three
                      axes
    /covariance       float32 (n, 2, 2) or (n, K, D, D), mm², calibrated
    /region_area_mm2  float32 (n, R) or (n, K, R), of the regions that hold the location with the
                      probabilities in the attribute ``levels``; infinite: the whole plane. With three axes it
                      is /region_volume_mm3.
    /confidence       float32 (n,) or (n, K), probability that the location is within the attribute
                      ``radius_mm``
    /flags            uint8 (n,), bits that the attribute ``meanings`` explains; 0: nothing to say
    /locations        float32, mm, of the same shape as predictions, where the input has them, and with them
    /nll              float32 (n,) or (n, K), negative log density of the location, nats
    /in_region        uint8 (n, R) or (n, K, R), 1: the region holds the location
    /emitter          int16 (n,), which animal called, where the input has tracks of several: its place among
                      them, -1: none is convincing; and with it
    /caller_probability  float32 (n, A), of each animal
    /true_emitter     int16 (n,), as the input states it, where it does
    /density          float32 (n, Y, X) or (n, K, Y, X), per mm², at the centres of cells of the arena, which
                      the attributes ``x_mm`` and ``y_mm`` give, where it was asked for
    /event_index      int64 (n,), which event of the input each row is, where not all were predicted
    /file_index       int64 (n,), and /files: which file each row is of, where several went into one

A file appears under its name when it is whole, and not before.

Letters: N events, A animals, K keypoints, D axes, R regions, Y and X cells of a map.
"""

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import numpy.typing as npt

from gerbil_tune.errors import LaunchError
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.units import ORIGIN, UNITS

if TYPE_CHECKING:
    from gerbil_tune.evaluation.predictions import EventPredictions
    from gerbil_tune.inference.callers import CallerColumns

FloatArray = npt.NDArray[np.float32]
Columns = dict[str, npt.NDArray[Any]]
DENSITY = "density"
_MAP_STORAGE = {"chunks": True, "compression": "gzip", "compression_opts": 1, "shuffle": True}
CONTENT = "gerbil_tune predictions"
FORMAT = 2


def write_predictions(
    path: Path,
    parts: "Iterable[tuple[int, EventPredictions]]",
    num_events: int,
    setup: RecordingSetup,
    attributes: Mapping[str, str | float | int],
    *,
    region_levels: tuple[float, ...] = (),
    density_step_mm: float | None = None,
    callers: "CallerColumns | None" = None,
    extra: Columns | None = None,
    aliases: tuple[str, ...] = (),
) -> None:
    """Write one file, under a temporary name in the same folder until it is whole.

    Args:
        path: Its name.
        parts: First event and predictions of each part, in any order; together all events.
        num_events: N.
        setup: Keypoints and axes of the predictions.
        attributes: Of the file's root; see ``file_attributes``.
        region_levels: Coverage that each conformal region promises.
        density_step_mm: Side of the cells of density maps, where there are some.
        callers: Names the animals that called, where it is to be told.
        extra: Further datasets, whole.
        aliases: Further names of the dataset ``predictions``.

    Raises:
        LaunchError: If the file cannot be written, or events are missing.
    """
    from gerbil_tune.evaluation.maps import cell_centres_mm

    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(temporary, "w") as file:
            file.attrs.update(file_attributes(setup, attributes))
            for name, values in (extra or {}).items():
                file[name] = values
            _fill(file, parts, num_events, callers, with_regions=bool(region_levels))
            facts = _dataset_attributes(setup, region_levels)
            if density_step_mm is not None:
                x_mm, y_mm = cell_centres_mm(setup, density_step_mm)
                facts[DENSITY] = {"units": f"1/{UNITS}^2", "x_mm": x_mm, "y_mm": y_mm}
            facts |= {} if callers is None else callers.attributes()
            for name, stated in facts.items():
                if name in file:
                    file[name].attrs.update(stated)
            for alias in aliases:
                file[alias] = file["predictions"]  # a link, not a copy
        temporary.replace(path)
    except OSError as error:
        raise LaunchError(
            f"{path}: cannot be written ({error.strerror or error}); make room or name an output in a folder "
            "that can be written"
        ) from None
    finally:
        with contextlib.suppress(OSError):  # which has been told
            temporary.unlink()


def _fill(
    file: h5py.File,
    parts: "Iterable[tuple[int, EventPredictions]]",
    num_events: int,
    callers: "CallerColumns | None",
    *,
    with_regions: bool,
) -> None:
    written = np.zeros(num_events, dtype=bool)
    for start, predictions in parts:
        stop = start + len(predictions)
        found = columns(predictions, with_regions=with_regions)
        if callers is not None:
            found |= callers.columns(start, predictions)
        for name, values in found.items():
            if name not in file:
                storage = _MAP_STORAGE if name == DENSITY else {}
                shape = num_events, *values.shape[1:]
                file.create_dataset(name, shape, values.dtype, **storage)
            file[name][start:stop] = values
        written[start:stop] = True
    if not written.all():
        missing = int(np.count_nonzero(~written))
        raise LaunchError(
            f"{missing} of {num_events} events not written: does another process predict into the same "
            "file? The same command goes on"
        )


def columns(predictions: "EventPredictions", *, with_regions: bool) -> Columns:
    """The datasets of some events by name, without the keypoint axis where there is one in the plane.

    Args:
        predictions: Of N events.
        with_regions: Whether the model has conformal regions.
    """
    num_keypoints, num_axes = predictions.mean_mm_NKD.shape[1:]
    found: dict[str, npt.NDArray[Any] | None] = {
        "predictions": predictions.mean_mm_NKD,
        "covariance": predictions.covariance_mm2_NKDD,
        "confidence": predictions.confidence_NK,
        "nll": predictions.nll_NK,
        DENSITY: predictions.density_NKYX,
    }
    if with_regions:
        found[region_dataset(num_axes)] = predictions.region_size_NKR
        in_region = predictions.in_region_NKR
        found["in_region"] = None if in_region is None else in_region.astype(np.uint8)
    is_plain = (num_keypoints, num_axes) == (1, 2)
    result = {
        name: values[:, 0] if is_plain else values
        for name, values in found.items()
        if values is not None
    }
    if predictions.flags_N is not None:
        result["flags"] = predictions.flags_N
    return result


def region_dataset(num_axes: int) -> str:
    """Name of the dataset with the sizes of conformal regions."""
    return {2: "region_area_mm2", 3: "region_volume_mm3"}[num_axes]


def plain_shape(values_NKD: FloatArray) -> FloatArray:
    """Locations without the keypoint axis where there is one keypoint in the plane: (N, 2)."""
    return values_NKD[:, 0] if values_NKD.shape[1:] == (1, 2) else values_NKD


def _dataset_attributes(
    setup: RecordingSetup, region_levels: tuple[float, ...]
) -> dict[str, dict[str, Any]]:
    from gerbil_tune.evaluation.confidence import RADIUS_MM
    from gerbil_tune.inference.flags import MEANINGS

    levels = np.array(region_levels)
    location = {"units": f"{UNITS}, origin {ORIGIN}"}
    meanings = {str(int(flag)): meaning for flag, meaning in MEANINGS.items()}
    return {
        "predictions": location,
        "locations": location,
        "covariance": {"units": f"{UNITS}^2"},
        region_dataset(setup.num_axes): {"units": f"{UNITS}^{setup.num_axes}", "levels": levels},
        "in_region": {"levels": levels},
        "confidence": {"radius_mm": RADIUS_MM},
        "nll": {"units": f"nats, density per {UNITS}^{setup.num_axes}"},
        "flags": {"meanings": json.dumps(meanings)},
    }


def file_attributes(
    setup: RecordingSetup, attributes: Mapping[str, str | float | int]
) -> dict[str, Any]:
    """Attributes of a file of predictions: the given ones and those that hold for all."""
    return {
        "content": CONTENT,
        "format": FORMAT,
        "units": UNITS,
        "origin": ORIGIN,
        "keypoints": ",".join(setup.keypoints),
        **attributes,
    }


def read_attributes(path: Path) -> dict[str, Any] | None:
    """Attributes of an existing file of predictions, None if the file is anything else."""
    try:
        with h5py.File(path, "r") as file:
            attributes = {name: _plain(value) for name, value in file.attrs.items()}
    except OSError:
        return None
    return attributes if attributes.get("content") == CONTENT else None


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
