"""Files of predictions.

    /predictions   float32 (n, 2), mm from the arena's centre; (n, K, D) with several keypoints or three axes
    /covariance    float32 (n, 2, 2) or (n, K, D, D), mm², calibrated
    /region_size   float32 (n, R) or (n, K, R), mm² (mm³ with three axes), of the region that holds the truth
                   with the probability in the attribute ``levels``; infinite: the whole plane
    /locations     float32, mm, of the same shape as predictions, where the input has them
    /event_index   int64 (n,), which event of the input each row is, where not all were predicted

A file appears under its name when it is whole, and not before.

Letters: N events, K keypoints, D axes.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import h5py
import numpy as np
import numpy.typing as npt

from gerbil_tune.errors import DatasetError
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.units import ORIGIN, UNITS

if TYPE_CHECKING:
    from gerbil_tune.evaluation.predictions import EventPredictions

FloatArray = npt.NDArray[np.float32]
CONTENT = "gerbil_tune predictions"


class PredictionWriter:
    """Writes one file, rows in any order.

    Leaving the ``with`` block without an error finishes the file; leaving it with one removes what there is.
    """

    def __init__(
        self,
        path: Path,
        num_events: int,
        setup: RecordingSetup,
        attributes: Mapping[str, str | float | int],
        region_levels: tuple[float, ...] = (),
        locations_mm_NKD: FloatArray | None = None,
        event_index_N: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Begin a file under a temporary name in the same folder.

        Args:
            path: Its final name.
            num_events: N.
            setup: Keypoints and axes of the predictions.
            attributes: Of the file's root; see ``file_attributes``.
            region_levels: Coverage that each conformal region promises.
            locations_mm_NKD: True locations to go with the predictions.
            event_index_N: Places of the events in the input; None: all of them in order.

        Raises:
            DatasetError: If the file cannot be made.
        """
        self.path = path
        self._setup = setup
        self._written = np.zeros(num_events, dtype=bool)
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
        shape = (num_events, len(setup.keypoints), setup.num_axes)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = h5py.File(self._temporary, "w")
        except OSError as error:
            raise DatasetError(
                f"{path}: cannot be written ({error}); name an output in a folder that can be"
            ) from None
        self._file.attrs.update(file_attributes(setup, attributes))
        # The layout without a keypoint axis is decided once, on arrays of no events.
        mean, covariance = shape_for_output(
            np.empty((0, *shape[1:]), np.float32), np.empty((0, *shape[1:], shape[2]), np.float32)
        )
        self._create("predictions", mean.shape[1:], f"{UNITS}, origin {ORIGIN}")
        self._create("covariance", covariance.shape[1:], f"{UNITS}^2")
        if region_levels:
            per_keypoint = shape[1:2] if mean.ndim == 3 else ()
            row_shape = (*per_keypoint, len(region_levels))
            self._create("region_size", row_shape, f"{UNITS}^{setup.num_axes}")
            self._file["region_size"].attrs["levels"] = np.array(region_levels)
        if locations_mm_NKD is not None:
            self._create("locations", mean.shape[1:], f"{UNITS}, origin {ORIGIN}")
            self._file["locations"][:] = locations_mm_NKD.reshape(num_events, *mean.shape[1:])
        if event_index_N is not None:
            self._file.create_dataset("event_index", data=event_index_N, dtype=np.int64)

    @property
    def complete(self) -> bool:
        """Whether every row has been written."""
        return bool(self._written.all())

    def write(self, start: int, predictions: "EventPredictions") -> None:
        """Write the rows from ``start`` on."""
        stop = start + len(predictions)
        mean, covariance = shape_for_output(
            predictions.mean_mm_NKD, predictions.covariance_mm2_NKDD
        )
        self._file["predictions"][start:stop] = mean
        self._file["covariance"][start:stop] = covariance
        if "region_size" in self._file:
            sizes = predictions.region_size_NKR
            self._file["region_size"][start:stop] = sizes[:, 0] if mean.ndim == 2 else sizes
        self._written[start:stop] = True

    def finish(self) -> None:
        """Give the file its name.

        Raises:
            RuntimeError: If rows are missing.
        """
        if not self.complete:
            missing = int(np.count_nonzero(~self._written))
            raise RuntimeError(f"{self.path}: {missing} of {len(self._written)} rows not written")
        self._file.close()
        self._temporary.replace(self.path)

    def discard(self) -> None:
        """Remove what has been written; does nothing to a finished file."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.finish()
        finally:
            self.discard()

    def _create(self, name: str, row_shape: tuple[int, ...], unit: str) -> None:
        dataset = self._file.create_dataset(name, (len(self._written), *row_shape), np.float32)
        dataset.attrs["units"] = unit


def shape_for_output(
    mean_mm_NKD: FloatArray, covariance_mm2_NKDD: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Drop the keypoint axis where there is one keypoint in the plane: (N, 2) and (N, 2, 2)."""
    if mean_mm_NKD.shape[1:] == (1, 2):
        return mean_mm_NKD[:, 0], covariance_mm2_NKDD[:, 0]
    return mean_mm_NKD, covariance_mm2_NKDD


def file_attributes(
    setup: RecordingSetup, attributes: Mapping[str, str | float | int]
) -> dict[str, Any]:
    """Attributes of a file of predictions: the given ones and those that hold for all."""
    return {
        "content": CONTENT,
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
