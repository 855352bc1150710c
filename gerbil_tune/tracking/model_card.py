"""What whoever opens the registry a year later must know of a model: its card, in Markdown.

The parts are those of Mitchell et al. 2019 (Model Cards for Model Reporting, arXiv:1810.03993) that apply to
a network that localizes calls.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gerbil_tune.geometry import RecordingSetup

CARD_FILE = "model_card.md"
_METRICS = {
    "val_error_median_mm": ("median error", "{:.1f} mm"),
    "val_error_mean_mm": ("mean error", "{:.1f} mm"),
    "val_error_p90_mm": ("90th percentile of the error", "{:.1f} mm"),
    "val_nll": ("negative log-likelihood", "{:.2f} nats"),
    "val_crps_mm": ("energy score (CRPS)", "{:.1f} mm"),
    "val_coverage_95": ("coverage of the 95 % regions", "{:.1%}"),
    "val_calibration_error": ("calibration error", "{:.3f}"),
}
_LIMITS = (
    "It is for this array of microphones in this arena alone: with other positions its locations are wrong, "
    "without a sign of it.",
    "It locates one caller a call, and with tracks of several animals tells which of them it was. It does "
    "not detect calls in a recording, and two animals that call at once it does not tell apart.",
    "Stated regions hold what they promise for calls like those of the validation events. Other animals, "
    "other noise or moved microphones ask for labelled events of their own: `gerbil-tune evaluate` says how "
    "far they still hold.",
)


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card tells of a model.

    Attributes:
        name: Of the registered model.
        architecture: Its networks in a few words.
        num_parameters: Weights that were trained.
        setup: The recording site.
        metrics: Validation metrics by name.
        temperature: Of the calibration.
        conformal_levels: Coverage that its regions promise; empty without conformal calibration.
        provenance: Where it came from.
        caller_error_rate: Lowest rate at which one of two animals can be named as the caller, or None.
    """

    name: str
    architecture: str
    num_parameters: int
    setup: RecordingSetup
    metrics: Mapping[str, float]
    temperature: float
    conformal_levels: Sequence[float]
    provenance: Mapping[str, Any]
    caller_error_rate: float | None = None


def model_card(facts: CardFacts) -> str:
    """Write the card, as Markdown."""
    sections = (
        f"# {facts.name}\n\n{_purpose(facts)}",
        f"## Training data\n\n{_training_data(facts.provenance)}",
        f"## How good it is\n\n{_metrics(facts)}",
        f"## Calibration\n\n{_calibration(facts)}",
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in _LIMITS),
        f"## How to use it\n\n{_use(facts)}",
    )
    return "\n\n".join(sections) + "\n"


def _purpose(facts: CardFacts) -> str:
    setup = facts.setup
    arena = " x ".join(f"{width:g}" for width in setup.arena_mm)
    what = " and ".join(setup.keypoints)
    return (
        f"Localizes the calls of rodents: the {what} of the caller in {setup.num_axes} axes, in millimetres "
        f"from the centre of an arena of {arena} mm, out of {setup.num_microphones} microphones at "
        f"{setup.sample_rate_hz / 1000:g} kHz. Network: {facts.architecture}, "
        f"{facts.num_parameters:,} parameters."
    )


def _training_data(provenance: Mapping[str, Any]) -> str:
    rows = {
        "training events": _count(provenance.get("training_events")),
        "validation events": _count(provenance.get("validation_events")),
        "files": ", ".join(f"`{file}`" for file in provenance.get("data_files", ())),
        "fingerprint": f"`{provenance['data_fingerprint']}`"
        if "data_fingerprint" in provenance
        else "",
        "study": provenance.get("study", ""),
        "trial": provenance.get("trial", ""),
        "trained": provenance.get("created", ""),
        "gerbil_tune": provenance.get("package_version", ""),
        "commit": provenance.get("commit", ""),
    }
    return _table(("", ""), [(name, str(value)) for name, value in rows.items() if value != ""])


def _metrics(facts: CardFacts) -> str:
    intervals = facts.provenance.get("validation_intervals", {})
    rows = []
    for name, (title, form) in _METRICS.items():
        if name not in facts.metrics:
            continue
        ends = intervals.get(name)
        interval = "" if ends is None else " to ".join(form.format(end) for end in ends)
        rows.append((title, form.format(facts.metrics[name]), interval))
    if not rows:
        return "Nothing was measured when it was made; `gerbil-tune evaluate` does."
    table = _table(("validation events", "", "95 % interval"), rows)
    return (
        f"{table}\n\nThese events chose the weights and fitted the calibration; on events that had no part "
        "in that, a model is somewhat worse."
    )


def _calibration(facts: CardFacts) -> str:
    if facts.caller_error_rate is None:
        return _uncertainty(facts)
    return (
        f"{_uncertainty(facts)} Where tracks of two animals are given, the caller is named at an error rate "
        f"of {facts.caller_error_rate:.2g} or more."
    )


def _uncertainty(facts: CardFacts) -> str:
    way = "widened" if facts.temperature > 1 else "narrowed"
    said = f"Stated densities are {way} by a temperature of {facts.temperature:.3g}."
    if not facts.conformal_levels:
        return f"{said} There are no conformal regions."
    levels = ", ".join(f"{level:.0%}" for level in facts.conformal_levels)
    return (
        f"{said} Conformal regions hold the location with a probability of {levels}, over the whole arena "
        "and, where there were enough events, in each ninth of it."
    )


def _use(facts: CardFacts) -> str:
    setup = facts.setup
    return (
        "```bash\n"
        f"gerbil-tune predict --model models:/{facts.name}@champion --data RECORDING.h5 -o predictions.h5\n"
        "```\n\n"
        "or, with MLflow and this package installed:\n\n"
        "```python\n"
        "import mlflow\n\n"
        f'model = mlflow.pyfunc.load_model("models:/{facts.name}@champion")\n'
        f"# audio: (events, samples, {setup.num_microphones}) float32, full scale 1, padded with zeros\n"
        f'answer = model.predict(audio, params={{"sample_rate_hz": {setup.sample_rate_hz:g}}})\n'
        'answer["predictions"], answer["covariance"]  # mm and mm²\n'
        "```"
    )


def _count(number: Any) -> str:
    return "" if number is None else f"{number:,}"


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
