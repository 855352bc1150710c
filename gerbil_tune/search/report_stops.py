"""Which trials were stopped or failed, where and why."""

from collections import Counter
from collections.abc import Sequence

from gerbil_tune.pages.pieces import (
    Cell,
    number_cell,
    paragraph,
    scroll,
    section,
    table,
    text_cell,
)
from gerbil_tune.search.report_cost import cost_of
from gerbil_tune.search.report_study import StudyView, TrialRecord
from gerbil_tune.units import format_duration

_EARLY_STOP = "early stop"
_KINDS = {
    _EARLY_STOP: "not among the best at a comparison",
    "replaced": "its place was taken by a copy of a better one",
    "budget": "the budget was spent",
    "infeasible": "beyond a constraint, so not run",
    "diverged": "the loss became infinite or exploded",
    "out of memory": "it did not fit into the memory, with half the batch neither",
    "crashed": "its process died again and again",
    "error": "it raised an error",
}
_UNKNOWN = "no reason noted"
_NUMBERS = "number"


def stops(view: StudyView) -> str:
    """The section: counts by reason, early stops by rung, failures and mishaps one by one."""
    ended = view.in_state("pruned", "infeasible", "failed")
    troubled = [trial for trial in view.trials if trial.mishaps]
    if not ended and not troubled:
        return section("stops", "What was stopped and why", paragraph("Nothing was stopped yet."))
    content = [_by_kind(ended)] if ended else []
    if rungs := rung_counts(view.trials):
        content.append(_by_rung(rungs))
    if failed := view.in_state("failed"):
        content.append(_failures(failed))
    if troubled:
        content.append(_mishaps(troubled))
    return section("stops", "What was stopped and why", *content)


def rung_counts(trials: Sequence[TrialRecord]) -> list[tuple[int, int, int]]:
    """(epoch, trials that got so far, trials stopped there) for each epoch at which any was stopped early."""
    stopped = Counter(
        trial.last_epoch
        for trial in trials
        if trial.state == "pruned" and trial.reason_kind in (_EARLY_STOP, "") and trial.curve
    )
    own = [trial for trial in trials if trial.state != "known"]
    return [
        (epoch, sum(trial.last_epoch >= epoch for trial in own), stopped[epoch])
        for epoch in sorted(stopped)
    ]


def _by_kind(ended: Sequence[TrialRecord]) -> str:
    groups: dict[str, list[TrialRecord]] = {kind: [] for kind in _KINDS}
    for trial in ended:
        groups.setdefault(trial.reason_kind or _UNKNOWN, []).append(trial)
    rows = []
    for kind, trials in groups.items():
        if trials:
            spent = cost_of(trials)
            cells = [
                text_cell(kind, css=""),
                text_cell(_KINDS.get(kind, ""), css="meaning"),
                number_cell(spent.trials, "d"),
                number_cell(spent.epochs, "d"),
                number_cell(spent.seconds, text=format_duration(spent.seconds)),
            ]
            rows.append((cells, False))
    headings = ("reason", "meaning", "trials", "epochs", "time")
    return scroll(table(headings, rows, classes=dict.fromkeys((2, 3, 4), _NUMBERS)))


def _by_rung(rungs: Sequence[tuple[int, int, int]]) -> str:
    rows = [
        (
            [
                number_cell(epoch, "d"),
                number_cell(reached, "d"),
                number_cell(stopped, "d"),
                number_cell(stopped / reached, ".0%"),
            ],
            False,
        )
        for epoch, reached, stopped in rungs
    ]
    headings = ("after epoch", "trials that got there", "stopped there", "share")
    heads = dict.fromkeys(range(4), _NUMBERS)
    return "<h3>Early stops by rung</h3>" + scroll(table(headings, rows, classes=heads))


def _failures(failed: Sequence[TrialRecord]) -> str:
    rows = [
        (
            [
                number_cell(trial.number, "d"),
                text_cell(trial.reason_kind or _UNKNOWN, css="failed"),
                number_cell(trial.last_epoch, "d"),
                text_cell(trial.reason, css="reason"),
            ],
            False,
        )
        for trial in failed
    ]
    headings = ("trial", "reason", "last epoch", "in words")
    heads = dict.fromkeys((0, 2), _NUMBERS)
    return "<h3>Failures</h3>" + scroll(table(headings, rows, classes=heads), css="tall short")


def _mishaps(troubled: Sequence[TrialRecord]) -> str:
    rows: list[tuple[list[Cell], bool]] = [
        (
            [
                number_cell(trial.number, "d"),
                text_cell(trial.state, css=""),
                text_cell("; ".join(trial.mishaps), css="reason"),
            ],
            False,
        )
        for trial in troubled
    ]
    headings = ("trial", "now", "what it got over, or not")
    return "<h3>Crashes and lacks of memory that were tried again</h3>" + scroll(
        table(headings, rows, classes={0: _NUMBERS}), css="tall short"
    )
