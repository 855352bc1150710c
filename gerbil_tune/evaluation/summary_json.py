"""The numbers of an evaluation's page as JSON, and whether a file was written so."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gerbil_tune import __version__
from gerbil_tune.evaluation.bootstrap import CONFIDENCE, FEWEST_GROUPS, Interval
from gerbil_tune.evaluation.breakdowns import Breakdown
from gerbil_tune.evaluation.paired import PairedComparison
from gerbil_tune.evaluation.region_errors import RegionErrors
from gerbil_tune.evaluation.summary import STAGES, Evaluation, ModelFacts, Summary
from gerbil_tune.evaluation.verdict import judge
from gerbil_tune.evaluation.worst_events import WorstEvent
from gerbil_tune.units import ORIGIN, UNITS

_FORMATS = "gerbil_tune evaluation page"
FORMAT = f"{_FORMATS} 1"


def is_summary(path: Path) -> bool:
    """Whether a file holds such JSON, perhaps of an earlier version."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and str(content.get("format")).startswith(f"{_FORMATS} ")


def summary_json(evaluation: Evaluation, summary: Summary) -> dict[str, Any]:
    """All numbers as JSON; what is not finite is null."""
    result, events, setup = evaluation.result, evaluation.events, evaluation.setup
    content = {
        "format": FORMAT,
        "package_version": __version__,
        "written": summary.written,
        "units": UNITS,
        "origin": ORIGIN,
        "data": {
            "files": [str(file.path) for file in events.files],
            "fingerprint": events.fingerprint(),
            "num_events": len(events),
            "unscored": list(evaluation.unscored),
            "arena_mm": list(setup.arena_mm),
            "sample_rate_hz": setup.sample_rate_hz,
            "keypoints": list(result.keypoints),
            "num_microphones": setup.num_microphones,
        },
        "intervals": {
            "confidence": CONFIDENCE,
            "num_draws": summary.num_draws,
            "num_groups_drawn": summary.num_groups,
            "fewest_groups": FEWEST_GROUPS,
        },
        "models": [
            {field: getattr(model, field) for field in ModelFacts.__dataclass_fields__}
            for model in evaluation.models
        ],
        "methods": [_method_json(name, summary) for name in summary.scores],
        "weights": [
            {"model": model, "weights": STAGES[stage], "figures": _intervals_json(scores)}
            for model, stages in summary.by_weights.items()
            for stage, scores in stages.items()
        ],
        "weights_left_out": [
            {"model": other.model, "weights": STAGES[other.stage], "reason": other.reason}
            for other in evaluation.other_weights
            if other.method is None
        ],
        "comparisons": [
            _comparison_json(evaluation.subject, name, found)
            for name, found in summary.comparisons.items()
        ],
        "breakdowns": {found.name: _breakdown_json(found) for found in summary.breakdowns},
        "regions": [_region_json(found) for found in summary.regions],
        "worst_events": [_worst_json(event) for event in summary.worst],
    }
    plain: dict[str, Any] = _plain(content)
    return plain


def _method_json(name: str, summary: Summary) -> dict[str, Any]:
    figures = _intervals_json(summary.scores[name])
    figures |= {figure: {"value": value} for figure, value in summary.further[name].items()}
    return {"name": name, "figures": figures, "calibration_curve": summary.curves.get(name)}


def _intervals_json(scores: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    return {
        name: {"value": found.value, "low": found.low, "high": found.high}
        for name, found in scores.items()
    }


def _comparison_json(a: str, b: str, found: PairedComparison) -> dict[str, Any]:
    differences = {
        name: {
            "value": one.value,
            "low": one.low,
            "high": one.high,
            "probability_better": one.probability_better,
        }
        for name, one in found.differences.items()
    }
    verdict = judge(found)
    return {
        "a": a,
        "b": b,
        "a_minus_b": differences,
        "better": list(verdict.better),
        "worse": list(verdict.worse),
    }


def _breakdown_json(found: Breakdown) -> dict[str, Any]:
    return {
        "title": found.title,
        "bins": list(found.labels),
        "num_events": found.count_G,
        "methods": [
            {
                "name": name,
                "error_median_mm": method.median_mm_G,
                "error_median_low_mm": method.low_mm_G,
                "error_median_high_mm": method.high_mm_G,
                "error_p90_mm": method.p90_mm_G,
                "coverage_95": method.coverage_95_G,
            }
            for name, method in found.methods.items()
        ],
    }


def _region_json(found: RegionErrors) -> dict[str, Any]:
    return {
        "method": found.method,
        "rank_correlation": found.rank_correlation,
        "num_events": len(found.size_M),
        "num_infinite": found.num_infinite,
        "running_size": found.running_size,
        "running_error_mm": found.running_error_mm,
    }


def _worst_json(event: WorstEvent) -> dict[str, Any]:
    names = ("name", "command", "error_mm", "truth_mm_KD", "predicted_mm_KD", "length_ms", "snr_db")
    found = {name.removesuffix("_KD"): getattr(event, name) for name in names}
    return {**found, "session": event.group, "loudest_microphone": event.loudest}


def _plain(value: Any) -> Any:
    """The same of the types of JSON."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
