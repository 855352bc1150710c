"""Predictions of several methods for the same events: their table, and the file that keeps them.

File (HDF5): ``/locations`` (N, K, D) and for each method ``/methods/000/predictions`` (N, K, D) and
perhaps ``/covariance`` (N, K, D, D), ``/nll``, ``/level`` and ``/region_size_95`` (N, K), with the method's
name as attribute.

Letters: N events, K keypoints, D axes.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gerbil_tune import __version__
from gerbil_tune.errors import DatasetError
from gerbil_tune.evaluation.accuracy import errors_mm, summarize_errors
from gerbil_tune.evaluation.calibration import calibration_error, coverage
from gerbil_tune.evaluation.predictions import EventPredictions
from gerbil_tune.models.calibrated import LEVELS
from gerbil_tune.units import ORIGIN, UNITS

_FORMATS = "gerbil_tune evaluation"
_FORMAT = f"{_FORMATS} 3"
_OPTIONAL = {
    "covariance": "covariance_mm2_NKDD",
    "nll": "nll_NK",
    "level": "level_NK",
    "region_size_95": "region_size_95_NK",
}
"""Datasets of a method that states an uncertainty, and the fields that they hold."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """What the evaluation table says of one method; None where it states no uncertainty."""

    name: str
    mean_mm: float
    median_mm: float
    p90_mm: float
    nll: float | None
    calibration_error: float | None
    coverage_95: float | None


@dataclass(frozen=True, eq=False, slots=True)
class MethodResult:
    """What one method says of the events.

    Attributes:
        name: As shown in tables and figures.
        predictions_mm_NKD: Locations (N, K, D), mm.
        covariance_mm2_NKDD: Covariances (N, K, D, D), mm², or None.
        nll_NK: Negative log density of the truth, nats per mm^D, (N, K), or None.
        level_NK: Mass of the highest-density region that reaches the truth, (N, K), or None.
        region_size_95_NK: Area in mm² (volume in mm³ of three axes) of the conformal region of 95 %, (N, K),
            infinite where it is everything; or None, also where the model has no conformal regions.
    """

    name: str
    predictions_mm_NKD: NDArray[Any]
    covariance_mm2_NKDD: NDArray[Any] | None = None
    nll_NK: NDArray[Any] | None = None
    level_NK: NDArray[Any] | None = None
    region_size_95_NK: NDArray[Any] | None = None

    @classmethod
    def of_model(cls, name: str, predictions: EventPredictions) -> "MethodResult":
        """What a model says, compared with the truth."""
        sizes_NK = predictions.region_size_NKR[..., LEVELS.index(0.95)]
        return cls(
            name,
            predictions.mean_mm_NKD,
            predictions.covariance_mm2_NKDD,
            predictions.nll_NK,
            predictions.level_NK,
            None if np.isnan(sizes_NK).all() else sizes_NK,
        )

    def of_events(self, rows: NDArray[Any]) -> "MethodResult":
        """The same of some events: their places, or a mask (N,)."""
        chosen = {
            field: None if getattr(self, field) is None else getattr(self, field)[rows]
            for field in _OPTIONAL.values()
        }
        return MethodResult(self.name, self.predictions_mm_NKD[rows], **chosen)

    @property
    def is_scored_N(self) -> NDArray[np.bool_]:
        """Whether all that it says of an event are numbers, (N,)."""
        is_number_N = np.isfinite(self.predictions_mm_NKD).all(axis=(1, 2))
        for values_NK in (self.nll_NK, self.level_NK):
            if values_NK is not None:
                is_number_N &= np.isfinite(values_NK).all(axis=1)
        return np.asarray(is_number_N)


@dataclass(frozen=True, eq=False, slots=True)
class EvaluationResult:
    """What several methods say of the same events. The first method is the one in question.

    Attributes:
        data_path: The data file or folder.
        arena_mm: Full widths of the arena.
        keypoints: Names of the K keypoints.
        locations_mm_NKD: True locations (N, K, D), mm.
        methods: At least one; the last is the one that it is all about.

    Raises:
        DatasetError: If a shape does not fit, or two methods have one name.
    """

    data_path: str
    arena_mm: tuple[float, ...]
    keypoints: tuple[str, ...]
    locations_mm_NKD: NDArray[Any]
    methods: tuple[MethodResult, ...]

    def __post_init__(self) -> None:
        shape = self.locations_mm_NKD.shape
        if len(shape) != 3 or shape[1] != len(self.keypoints):
            raise DatasetError(
                f"locations must have the shape (events, keypoints, axes) with {len(self.keypoints)} "
                f"keypoints {', '.join(self.keypoints)}, but have the shape {shape}"
            )
        names = [method.name for method in self.methods]
        if not names or len(set(names)) != len(names):
            raise DatasetError(f"an evaluation needs methods with different names, but got {names}")
        for method in self.methods:
            _check_shapes(method, shape)

    @property
    def is_scored_N(self) -> NDArray[np.bool_]:
        """Whether all methods answer an event by numbers, (N,); others would spoil means and medians."""
        return np.asarray(np.logical_and.reduce([method.is_scored_N for method in self.methods]))

    def of_events(self, rows: NDArray[Any]) -> "EvaluationResult":
        """The same of some events: their places, or a mask (N,)."""
        methods = tuple(method.of_events(rows) for method in self.methods)
        return replace(self, locations_mm_NKD=self.locations_mm_NKD[rows], methods=methods)

    def rows(self) -> list[TableRow]:
        """One row a method, in the order of ``methods``."""
        return [self._row(method) for method in self.methods]

    def _row(self, method: MethodResult) -> TableRow:
        figures = self.figures(method)
        return TableRow(
            method.name,
            figures["error_mean_mm"],
            figures["error_median_mm"],
            figures["error_p90_mm"],
            figures.get("nll"),
            figures.get("calibration_error"),
            figures.get("coverage_95"),
        )

    def figures(self, method: MethodResult) -> dict[str, float]:
        """error_mean_mm, error_median_mm and error_p90_mm; with an uncertainty nll and how true it is.

        With conformal regions also region_area_95_mm2 or, of three axes, region_volume_95_mm3: the median
        over events and keypoints, infinite where most regions are everything.
        """
        summary = summarize_errors(errors_mm(method.predictions_mm_NKD, self.locations_mm_NKD))
        figures = {
            "error_mean_mm": summary.mean_mm,
            "error_median_mm": summary.median_mm,
            "error_p90_mm": summary.p90_mm,
        }
        if method.nll_NK is not None:
            figures["nll"] = float(method.nll_NK.mean())
        if method.level_NK is not None:
            figures["calibration_error"] = calibration_error(method.level_NK)
            figures["coverage_95"] = coverage(method.level_NK, 0.95)
        if method.region_size_95_NK is not None:
            name = region_size_name(self.locations_mm_NKD.shape[2])
            figures[name] = median_size(method.region_size_95_NK)
        return figures

    def save(self, path: Path) -> None:
        """Write everything to an HDF5 file, to a temporary name first."""
        import h5py

        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with h5py.File(temporary, "w") as file:
                self._write(file)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def _write(self, file: Any) -> None:
        file.attrs.update(
            {
                "format": _FORMAT,
                "data_path": self.data_path,
                "arena_mm": np.asarray(self.arena_mm, np.float64),
                "keypoints": list(self.keypoints),
                "units": UNITS,
                "origin": ORIGIN,
                "package_version": __version__,
            }
        )
        file["locations"] = self.locations_mm_NKD
        for number, method in enumerate(self.methods):
            group = file.create_group(f"methods/{number:03d}")
            group.attrs["name"] = method.name
            group["predictions"] = method.predictions_mm_NKD
            for dataset, field in _OPTIONAL.items():
                values = getattr(method, field)
                if values is not None:
                    group[dataset] = values

    @staticmethod
    def is_one(path: Path) -> bool:
        """Whether a file was written by ``save``, perhaps of an earlier version."""
        import h5py

        try:
            with h5py.File(path, "r") as file:
                return str(file.attrs.get("format", "")).startswith(f"{_FORMATS} ")
        except OSError:
            return False

    @classmethod
    def load(cls, path: Path) -> "EvaluationResult":
        """Read what ``save`` wrote.

        Raises:
            DatasetError: If the file does not exist or was not written by ``save``.
        """
        import h5py

        try:
            with h5py.File(path, "r") as file:
                if file.attrs.get("format") != _FORMAT:
                    raise DatasetError(
                        f"{path}: not an evaluation of this program (format "
                        f"{file.attrs.get('format')!r}, valid: {_FORMAT!r}); "
                        "write it with `gerbil-tune evaluate`"
                    )
                return cls._read(file)
        except (OSError, KeyError) as error:
            raise DatasetError(
                f"{path}: cannot be read as an evaluation ({error}); write it with `gerbil-tune evaluate`"
            ) from None

    @classmethod
    def _read(cls, file: Any) -> "EvaluationResult":
        return cls(
            data_path=str(file.attrs["data_path"]),
            arena_mm=tuple(float(width) for width in file.attrs["arena_mm"]),
            keypoints=tuple(str(name) for name in file.attrs["keypoints"]),
            locations_mm_NKD=file["locations"][()],
            methods=tuple(
                MethodResult(
                    name=str(group.attrs["name"]),
                    predictions_mm_NKD=group["predictions"][()],
                    **{
                        field: group[dataset][()]
                        for dataset, field in _OPTIONAL.items()
                        if dataset in group
                    },
                )
                for _, group in sorted(file["methods"].items())
            ),
        )


def region_size_name(num_axes: int) -> str:
    """What the size of a 95 % region is called among figures, with its unit."""
    return {2: "region_area_95_mm2", 3: "region_volume_95_mm3"}[num_axes]


def median_size(sizes_NK: NDArray[Any]) -> float:
    """Median of sizes, some of which may be infinite; NaN of none."""
    ordered = np.sort(sizes_NK, axis=None)
    count = len(ordered)
    if not count:
        return math.nan
    low, high = float(ordered[(count - 1) // 2]), float(ordered[count // 2])
    return high if math.isinf(high) else (low + high) / 2


def render_table(rows: Sequence[TableRow]) -> str:
    """The evaluation table as plain text, one line a method under a heading."""
    heading = ("method", *(title for title, _ in COLUMNS))
    cells = [heading, *((row.name, *format_row(row)) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(heading))]
    lines = [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


COLUMNS = (
    ("mean (mm)", "mean_mm"),
    ("median (mm)", "median_mm"),
    ("90th percentile (mm)", "p90_mm"),
    ("NLL (nats)", "nll"),
    ("calibration error", "calibration_error"),
    ("95 % coverage", "coverage_95"),
)
"""Heading and field of each column of the table after the name."""


def format_row(row: TableRow) -> tuple[str, ...]:
    """The cells of ``COLUMNS`` as text; a dash where the method states no uncertainty."""
    formats = {"nll": ".2f", "calibration_error": ".3f", "coverage_95": ".1%"}
    cells = []
    for _, field in COLUMNS:
        value: float | None = getattr(row, field)
        cells.append("-" if value is None else format(value, formats.get(field, ".1f")))
    return tuple(cells)


def _check_shapes(method: MethodResult, shape: tuple[int, ...]) -> None:
    found = method.predictions_mm_NKD.shape
    if found != shape:
        raise DatasetError(
            f"method {method.name!r} predicts the shape {found}, but the locations have the shape {shape} "
            "(events, keypoints, axes); evaluate a model on data with its own keypoints and axes"
        )
    covariance = method.covariance_mm2_NKDD
    if covariance is not None and covariance.shape != (*shape, shape[2]):
        raise DatasetError(
            f"method {method.name!r} states covariances of the shape {covariance.shape}, "
            f"but predictions of the shape {shape} need {(*shape, shape[2])}"
        )
