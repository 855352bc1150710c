"""The queue in front of a tracker: order, outages, refusals, bounds."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from gerbil_tune.errors import LaunchError
from gerbil_tune.tracking import delivery as delivery_module
from gerbil_tune.tracking.delivery import Delivery
from gerbil_tune.tracking.memory_tracker import MemoryTracker
from gerbil_tune.tracking.tracker import (
    EpochMetrics,
    RecordedRun,
    RunUpdate,
    StoreAwayError,
    now_ms,
)


class UnsteadyTracker(MemoryTracker):
    """A record in memory that can be away, and that notes the order of what it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.is_away = threading.Event()
        self.fails_at_artifacts = False
        self.order: list[object] = []

    def _check(self) -> None:
        if self.is_away.is_set():
            raise StoreAwayError("the store is away")

    def open_study(self, *args: object) -> str:
        self._check()
        return super().open_study(*args)  # type: ignore[arg-type]

    def recorded(self) -> dict[int, RecordedRun]:
        self._check()
        return super().recorded()

    def write(self, trial: int | None, update: RunUpdate) -> None:
        self._check()
        if "loss?" in update.summary:
            raise LaunchError("'loss?' is no name")
        if "bug" in update.summary:
            raise ZeroDivisionError("a bug")
        super().write(trial, update)
        self.order += [(trial, epoch) for epoch in sorted(update.epochs)]

    def log_artifact(self, path: Path, folder: str = "") -> None:
        if self.fails_at_artifacts:
            raise StoreAwayError("artifacts are away")
        super().log_artifact(path, folder)
        self.order.append(path)


def nothing_lacks(recorded: Mapping[int, RecordedRun]) -> Iterable[tuple[int, RunUpdate]]:
    return ()


def epoch(number: int) -> RunUpdate:
    return RunUpdate(epochs={number: EpochMetrics(now_ms(), {"a": float(number)})})


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_module, "_FIRST_RETRY_S", 0.01)
    monkeypatch.setattr(delivery_module, "_LONGEST_RETRY_S", 0.05)


@pytest.fixture
def tracker() -> UnsteadyTracker:
    return UnsteadyTracker()


@pytest.fixture
def start(tracker: UnsteadyTracker) -> Iterator[Callable[..., Delivery]]:
    started: list[Delivery] = []

    def make(lacking: object = nothing_lacks, **options: int) -> Delivery:
        delivery = Delivery(tracker, lacking, **options)  # type: ignore[arg-type]
        started.append(delivery)
        delivery.open("s", "s", {}, {}, timeout_s=5.0)
        return delivery

    yield make
    for delivery in started:
        delivery.close()
        delivery._thread.join(5.0)
        assert not delivery._thread.is_alive()


def states(tracker: MemoryTracker) -> dict[int, str]:
    return {number: run.state for number, run in MemoryTracker.recorded(tracker).items()}


def test_everything_arrives_and_each_run_in_its_order(tracker, start):
    delivery = start()
    for number in range(300):
        delivery.submit(number % 3, epoch(number))
    assert delivery.drain(5.0) == 0
    for trial in range(3):
        arrived = [number for run, number in tracker.order if run == trial]
        assert arrived == list(range(trial, 300, 3))


def test_an_outage_loses_nothing_and_is_told_once(tracker, start, caplog):
    delivery = start()
    tracker.is_away.set()
    started = time.perf_counter()
    for number in range(100):
        delivery.submit(number % 2, epoch(number))
    delivery.submit(0, RunUpdate(state="pruned"))
    assert time.perf_counter() - started < 0.5
    assert delivery.drain(0.2) == 2  # merged by run
    tracker.is_away.clear()
    assert delivery.drain(5.0) == 0
    assert [entry for entry in tracker.order if entry[0] == 0] == [(0, n) for n in range(0, 100, 2)]
    assert states(tracker) == {0: "pruned", 1: "running"}
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.getMessage() for record in warnings] == [
        "the store is away; the study goes on, and its record is kept and written later"
    ]


def test_a_study_begins_while_the_store_is_away(tracker, start):
    tracker.is_away.set()
    delivery = start()
    assert delivery.study_run_id is None
    delivery.submit(0, epoch(0))
    tracker.is_away.clear()
    assert delivery.drain(5.0) == 0
    assert delivery.study_run_id == "study:s"
    assert tracker.order == [(0, 0)]


def test_a_store_that_is_wrong_in_itself_is_told_at_once(tracker):
    tracker.open_study = lambda *args: (_ for _ in ()).throw(LaunchError("it was deleted"))
    delivery = Delivery(tracker, nothing_lacks)
    with pytest.raises(LaunchError, match="it was deleted"):
        delivery.open("s", "s", {}, {}, timeout_s=5.0)
    delivery.submit(0, epoch(0))
    delivery.catch_up()
    delivery.attach(Path("report.html"))
    started = time.perf_counter()
    delivery.drain(5.0)
    assert time.perf_counter() - started < 1.0


@pytest.mark.parametrize("name", ["loss?", "bug"])
def test_what_is_refused_is_told_once_and_holds_up_nothing(tracker, start, caplog, name):
    delivery = start()
    for _ in range(3):
        delivery.submit(0, RunUpdate(summary={name: 1.0}))
        assert delivery.drain(5.0) == 0
    delivery.submit(1, RunUpdate(state="complete"))
    assert delivery.drain(5.0) == 0
    assert states(tracker)[1] == "complete"
    assert caplog.text.count("trial 0 is not recorded") == 1


def test_artifacts_come_last_and_hold_up_nothing(tracker, start, tmp_path):
    page = tmp_path / "report.html"
    page.touch()
    delivery = start()
    tracker.fails_at_artifacts = True
    delivery.attach(page)
    for number in range(5):
        delivery.submit(0, epoch(number))
    assert delivery.drain(0.5) == 1
    assert tracker.order == [(0, number) for number in range(5)]
    tracker.fails_at_artifacts = False
    assert delivery.drain(5.0) == 0
    assert tracker.order[-1] == page


def test_what_waits_is_bounded_and_what_was_left_out_is_caught_up(tracker, start):
    known = {number: RunUpdate(state="complete") for number in range(40)}

    def lacking(recorded: Mapping[int, RecordedRun]) -> Iterable[tuple[int, RunUpdate]]:
        return [
            (n, known[n]) for n in known if n not in recorded or recorded[n].state != "complete"
        ]

    delivery = start(lacking, max_waiting=50)
    tracker.is_away.set()
    for number in range(40):
        for step in range(10):
            known[number].add(epoch(step))
            delivery.submit(number, epoch(step))
    assert delivery._size <= 50
    assert len(delivery._waiting) <= 10
    tracker.is_away.clear()
    assert delivery.drain(5.0) == 0
    recorded = MemoryTracker.recorded(tracker)
    assert {
        n: (run.state, run.last_epoch) for n, run in recorded.items() if n in delivery._waiting
    } == {}
    left_out = {n: run for n, run in recorded.items() if run.state == "complete"}
    assert len(recorded) == 40
    assert len(left_out) > 30
    assert all(run.last_epoch == 9 for run in recorded.values())


def test_what_was_new_before_catching_up_does_not_undo_it(tracker, start):
    tracker.is_away.set()
    delivery = start(lambda recorded: [(0, RunUpdate(state="interrupted"))])
    delivery.submit(0, RunUpdate(state="running"))
    delivery.catch_up()
    tracker.is_away.clear()
    assert delivery.drain(5.0) == 0
    assert states(tracker) == {0: "interrupted"}


def test_a_refusal_while_catching_up_leaves_out_that_trial_only(tracker, start, caplog):
    bad, good = RunUpdate(summary={"loss?": 1.0}), RunUpdate(state="failed")
    delivery = start(lambda recorded: [(0, bad), (1, good)])
    delivery.catch_up()
    assert delivery.drain(5.0) == 0
    assert states(tracker) == {1: "failed"}
    assert "trial 0 is not recorded" in caplog.text
