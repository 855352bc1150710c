"""What `data clean` leaves: an index of the events that stay, why the others go, and all measures.

    kept.npy        int64, 1-D: places of the events that stay, counted through the files of the data
    cleaning.json   filters, limits, counts, and the reasons for each event that was removed
    measures.csv    one row an event: what each filter measured

Legend: N events.
"""

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from gerbil_tune import __version__
from gerbil_tune.config.cleaning import CleaningConfig
from gerbil_tune.data.cleaning.cleaning import CleaningResult
from gerbil_tune.data.cleaning.filters import FilterOutcome
from gerbil_tune.data.events import EventSet
from gerbil_tune.data.files.index_files import write_indices
from gerbil_tune.errors import ConfigError
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.pages.writing import write_text

INDEX_FILE = "kept.npy"
REPORT_FILE = "cleaning.json"
MEASURES_FILE = "measures.csv"


def write_cleaning(
    folder: Path,
    events: EventSet,
    setup: RecordingSetup,
    result: CleaningResult,
    config: CleaningConfig,
    *,
    fingerprint: str,
) -> Path:
    """Write the three files; each appears whole or not at all, the index last.

    Args:
        folder: Made where it is missing.
        events: What was cleaned.
        setup: The recording site.
        result: Of it.
        config: The filters.
        fingerprint: Of all the data that the places count in.

    Returns:
        The index file.

    Raises:
        ConfigError: If the folder cannot be written.
    """
    report = json.dumps(
        _report(events, setup, result, config, fingerprint), indent=1, allow_nan=False
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / MEASURES_FILE, _measures_as_csv(events, result))
        write_text(folder / REPORT_FILE, report + "\n")
    except OSError as error:
        raise ConfigError(
            f"folder {folder} cannot be written ({error.strerror}); name one that can be"
        ) from None
    write_indices(folder / INDEX_FILE, result.kept)
    return folder / INDEX_FILE


def _report(
    events: EventSet,
    setup: RecordingSetup,
    result: CleaningResult,
    config: CleaningConfig,
    fingerprint: str,
) -> dict[str, Any]:
    alone = result.counts_alone
    skipped = {outcome.name for outcome in result.outcomes if outcome.skipped is not None}
    return {
        "package_version": __version__,
        "data": {
            "files": [str(file.path) for file in events.files],
            "num_events": sum(file.num_events for file in events.files),
            "fingerprint": fingerprint,
        },
        "site": setup.to_json(),
        # Without what could not be applied, this can be given as --config again.
        "config": config.model_dump(mode="json", exclude={"data", *skipped}),
        "looked_at": len(result.rows),
        "kept": int(result.is_kept_N.sum()),
        "filters": {
            outcome.name: {
                "removed": result.counts[outcome.name],
                "removed_by_no_other": alone[outcome.name],
                **_limit_and_spread(outcome),
                "skipped": outcome.skipped,
                "note": outcome.note,
            }
            for outcome in result.outcomes
        },
        "removed": [
            {
                "event": int(result.rows[i]),
                "where": events.describe(i),
                "reasons": result.explain(i),
            }
            for i in result.reasons
        ],
    }


def _limit_and_spread(outcome: FilterOutcome) -> dict[str, Any]:
    if outcome.measure_N is None:
        return {}
    quantiles = measured_quantiles(outcome)
    return {
        "unit": outcome.unit,
        "at_least" if outcome.is_lowest else "at_most": outcome.limit,
        "median": quantiles and quantiles[0],
        "99_percent_within": quantiles and quantiles[1],
    }


def measured_quantiles(outcome: FilterOutcome) -> tuple[float, float] | None:
    """Median of what was measured, and the bound that 99 % of the events keep on the limit's side.

    None where nothing finite was measured.
    """
    if outcome.measure_N is None:
        return None
    finite = outcome.measure_N[np.isfinite(outcome.measure_N)]
    if not len(finite):
        return None
    median, bound = np.quantile(finite, (0.5, 0.01 if outcome.is_lowest else 0.99))
    return float(median), float(bound)


def _measures_as_csv(events: EventSet, result: CleaningResult) -> str:
    """Columns event, file, event_in_file, kept, removed_by and one for each measure, with its unit."""
    measured = [outcome for outcome in result.outcomes if outcome.measure_N is not None]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    columns = [f"{outcome.name} ({outcome.unit})" for outcome in measured]
    writer.writerow(["event", "file", "event_in_file", "kept", "removed_by", *columns])
    for i, row in enumerate(result.rows.tolist()):
        values = [
            _short(float(outcome.measure_N[i]))
            for outcome in measured
            if outcome.measure_N is not None
        ]
        reasons = result.reasons.get(i, ())
        place = [row, events.files[events.file_numbers[i]].path.name, events.file_rows[i]]
        writer.writerow([*place, int(not reasons), " ".join(reasons), *values])
    return stream.getvalue()


def _short(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"
