"""The sums of the report: runs, cost, rungs, the Pareto front, families of copies."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gerbil_tune.search.report_cost import Supply, busy_share, supply_of
from gerbil_tune.search.report_pareto import pareto_front
from gerbil_tune.search.report_runs import (
    StudyRun,
    closed_runs,
    read_runs,
    searched_hours,
    study_state,
)
from gerbil_tune.search.report_stops import rung_counts
from gerbil_tune.search.report_study import State, StudyView, TrialRecord
from gerbil_tune.search.report_trials import family_lines

START = datetime(2026, 3, 1, 20, tzinfo=UTC)


def hour(number: float) -> datetime:
    return START + timedelta(hours=number)


def run(
    started: float, ended: float | None, status: str = "complete", places: int | None = 2
) -> StudyRun:
    return StudyRun(hour(started), None if ended is None else hour(ended), status, 4.0, 1.0, places)


def trial(number: int, state: State, **facts: Any) -> TrialRecord:
    return TrialRecord(number, state, None, **facts)


def view(trials: list[TrialRecord], runs: list[StudyRun], **attributes: Any) -> StudyView:
    return StudyView("s", "complete", ("m",), tuple(trials), (), None, attributes, tuple(runs))


@pytest.mark.parametrize(
    ("status", "locked", "state"),
    [
        ("running", True, "running"),
        ("running", False, "interrupted"),
        ("interrupted", True, "interrupted"),
        ("complete", True, "complete"),
        ("complete", False, "complete"),
        ("failed", False, "failed"),
    ],
)
def test_a_study_runs_while_a_search_says_so_and_holds_it(
    status: str, locked: bool, state: str
) -> None:
    assert study_state([run(0, 1), run(1, None, status)], locked=locked) == state


def test_a_study_without_a_noted_run_is_not_complete() -> None:
    assert study_state([], locked=True) == "running"
    assert study_state([], locked=False) == "interrupted"


def test_runs_are_read_with_their_time_zones() -> None:
    noted = {"started": "2026-03-01T20:00:00+00:00", "ended": None, "status": "running"}
    (one,) = read_runs({"runs": [{**noted, "cpus": 2.0, "gpus": 0.0}]})
    assert one.started == START
    assert (one.ended, one.trials_at_once, one.cpus) == (None, None, 2.0)
    assert read_runs({}) == ()


def test_a_killed_run_ends_with_its_last_sign_of_life() -> None:
    signs = [hour(0.5), hour(2.0), hour(10.5)]
    killed, last = closed_runs([run(0, None), run(10, None)], signs)
    assert (killed.ended, last.ended) == (hour(2.0), hour(10.5))
    (silent,) = closed_runs([run(20, None)], signs)
    assert silent.ended == hour(20)


def test_hours_of_searching_leave_pauses_out() -> None:
    runs = [run(0, 2), run(10, 13)]
    moments = (0, 1, 2, 5, 10, 11, 13, 20)
    expected = [0.0, 1.0, 2.0, 2.0, 2.0, 3.0, 5.0, 5.0]
    assert [searched_hours(hour(moment), runs) for moment in moments] == expected


def test_supply_is_weighted_by_time() -> None:
    supply = supply_of(view([], [run(0, 3, places=2), run(5, 6, places=6)]))
    assert supply is not None
    assert supply.trials_at_once == pytest.approx(3.0, rel=1e-3)
    assert supply.cpus_per_trial == pytest.approx(4 / 3, rel=1e-3)
    assert supply.gpus_per_trial == pytest.approx(1 / 3, rel=1e-3)
    assert supply_of(view([], [run(0, 1, places=None)])) is None


def test_places_are_busy_for_the_share_that_trials_took() -> None:
    trials = [trial(0, "complete", seconds=3600.0), trial(1, "failed", seconds=1800.0)]
    supply = Supply(2.0, 1.0, 0.0)
    assert busy_share(view(trials, [], spent_s=3600.0), supply) == pytest.approx(0.75)
    assert busy_share(view(trials, [run(0, 1)]), supply) == pytest.approx(0.75)
    assert busy_share(view([], []), supply) is None


def test_rungs_count_who_got_there_and_who_was_stopped() -> None:
    def record(number: int, state: State, epochs: int, kind: str = "") -> TrialRecord:
        curve = tuple((epoch, 1.0) for epoch in range(1, epochs + 1))
        return trial(number, state, curve=curve, reason_kind=kind)

    trials = [
        record(0, "complete", 27),
        record(1, "pruned", 3, "early stop"),
        record(2, "pruned", 9, "early stop"),
        record(3, "pruned", 3, "early stop"),
        record(4, "pruned", 5, "budget"),
        record(5, "failed", 2, "diverged"),
        record(6, "known", 27),
    ]
    assert rung_counts(trials) == [(3, 5, 2), (9, 2, 1)]
    assert rung_counts([]) == []


values = st.lists(st.tuples(*[st.integers(0, 5).map(float)] * 3), max_size=25)


@given(values)
def test_the_front_is_what_nothing_dominates(points: list[tuple[float, ...]]) -> None:
    def beaten(point: tuple[float, ...]) -> bool:
        return any(
            o != point and all(a <= b for a, b in zip(o, point, strict=True)) for o in points
        )

    trials = [trial(n, "complete", values=point) for n, point in enumerate(points)]
    front = pareto_front([*trials, trial(99, "pruned"), trial(98, "known", values=(-1.0,) * 3)])

    assert {t.number for t in front} == {n for n, p in enumerate(points) if not beaten(p)}
    assert [t.values for t in front] == sorted(t.values for t in front)


def test_lines_follow_the_copies_back_to_the_first_member() -> None:
    trials = [
        trial(0, "complete"),
        trial(3, "pruned", parent=0),
        trial(5, "complete", parent=3),
        trial(7, "complete", parent=8),
        trial(8, "complete", parent=7),
    ]
    lines = family_lines(trials)
    assert lines[5] == "0 > 3 > 5"
    assert lines[3] == "0 > 3"
    assert 0 not in lines
    assert lines[7] == "8 > 7"
