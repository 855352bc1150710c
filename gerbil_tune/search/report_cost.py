"""What a study cost, and how much of that went to trials that were stopped."""

from collections.abc import Sequence
from dataclasses import dataclass

from gerbil_tune.pages.pieces import (
    Cell,
    number_cell,
    paragraph,
    scroll,
    section,
    table,
    text_cell,
)
from gerbil_tune.search.report_study import OPEN, StudyView, TrialRecord
from gerbil_tune.units import format_duration

_GROUPS = (
    ("complete", ("complete",)),
    ("stopped early (pruned)", ("pruned",)),
    ("failed", ("failed",)),
    ("not over yet", OPEN),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """Of some trials.

    Attributes:
        trials: How many.
        epochs: That they trained.
        seconds: That they took, added up.
    """

    trials: int
    epochs: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Supply:
    """What the runs of a study had, on average over their time.

    Attributes:
        trials_at_once: Trials that run at a time.
        cpus_per_trial: CPUs of one.
        gpus_per_trial: GPUs of one.
    """

    trials_at_once: float
    cpus_per_trial: float
    gpus_per_trial: float


def cost_of(trials: Sequence[TrialRecord]) -> Cost:
    """Add up what trials cost."""
    return Cost(
        len(trials),
        sum(len(trial.curve) for trial in trials),
        sum(trial.seconds or 0.0 for trial in trials),
    )


def supply_of(view: StudyView) -> Supply | None:
    """What the runs had for their trials; None where they have not noted it."""
    weighed = [
        (run, (run.ended - run.started).total_seconds() + 1.0)
        for run in view.runs
        if run.ended is not None and run.trials_at_once
    ]
    slots = sum(weight * (run.trials_at_once or 0) for run, weight in weighed)
    if not slots:
        return None
    return Supply(
        trials_at_once=slots / sum(weight for _, weight in weighed),
        cpus_per_trial=sum(weight * run.cpus for run, weight in weighed) / slots,
        gpus_per_trial=sum(weight * run.gpus for run, weight in weighed) / slots,
    )


def busy_share(view: StudyView, supply: Supply) -> float | None:
    """Share of the time of searching that its places for trials were taken."""
    offered_s = view.searched_s * supply.trials_at_once
    return min(1.0, cost_of(view.trials).seconds / offered_s) if offered_s else None


def cost(view: StudyView) -> str:
    """The section: a table by how trials ended, and what it means."""
    groups = [(title, cost_of(view.in_state(*states))) for title, states in _GROUPS]
    total = cost_of([t for t in view.trials if t.state not in ("known", "infeasible")])
    if not total.trials:
        return section("cost", "Cost", paragraph("No trial has been run yet."))
    supply = supply_of(view)
    rows = [
        (_cells(title, part, total, supply), title == "all")
        for title, part in (*groups, ("all", total))
        if part.trials
    ]
    headings = ["trials", "number", "epochs", "time", "a trial", "share of the time"]
    if supply is not None:
        headings += ["CPU hours"] + ["GPU hours"] * bool(supply.gpus_per_trial)
    return section(
        "cost",
        "Cost",
        scroll(table(headings, rows, classes=dict.fromkeys(range(1, len(headings)), "number"))),
        *(paragraph(sentence) for sentence in _sentences(view, total, supply)),
    )


def _cells(title: str, part: Cost, total: Cost, supply: Supply | None) -> list[Cell]:
    share = part.seconds / total.seconds if total.seconds else None
    cells = [
        text_cell(title, css=""),
        number_cell(part.trials, "d"),
        number_cell(part.epochs, "d"),
        number_cell(part.seconds, text=format_duration(part.seconds)),
        number_cell(part.seconds / part.trials, text=format_duration(part.seconds / part.trials)),
        number_cell(share, ".0%"),
    ]
    if supply is not None:
        hours = part.seconds / 3600
        cells.append(number_cell(hours * supply.cpus_per_trial, ".2f"))
        if supply.gpus_per_trial:
            cells.append(number_cell(hours * supply.gpus_per_trial, ".2f"))
    return cells


def _sentences(view: StudyView, total: Cost, supply: Supply | None) -> list[str]:
    sentences = []
    stopped = cost_of(view.in_state("pruned", "failed")).seconds
    if total.seconds:
        sentences.append(
            f"{stopped / total.seconds:.0%} of the training time went to trials that were stopped early "
            "or failed."
        )
    busy = busy_share(view, supply) if supply is not None else None
    if busy is not None and supply is not None:
        sentences.append(
            f"{supply.trials_at_once:.2g} trials ran at a time, and those places were busy "
            f"{busy:.0%} of the {format_duration(view.searched_s)} of searching."
        )
    return sentences
