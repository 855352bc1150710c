"""What every tracker must do, asked of each of them."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from gerbil_tune.errors import LaunchError
from gerbil_tune.tracking.memory_tracker import MemoryTracker
from gerbil_tune.tracking.mlflow_tracker import EPOCH_METRIC, MlflowTracker
from gerbil_tune.tracking.tracker import EpochMetrics, RunUpdate, Tracker, now_ms

_numbers = itertools.count()


@dataclass
class Record:
    """A run as it was recorded, whatever keeps it."""

    parent_id: str | None
    parameters: dict[str, str]
    tags: dict[str, str]
    history: dict[str, list[tuple[int, float]]]
    latest: dict[str, float]
    artifacts: set[str]


def read_memory(tracker: MemoryTracker, run_id: str) -> Record:
    run = tracker.runs[run_id]
    history: dict[str, list[tuple[int, float]]] = {}
    for epoch, metrics in run.epochs.items():
        for name, value in metrics.items():
            history.setdefault(name, []).append((epoch, value))
    latest = {name: values[-1][1] for name, values in history.items()} | run.summary
    parameters = {name: str(value) for name, value in run.parameters.items()}
    return Record(run.parent_id, parameters, run.tags, history, latest, set(run.artifacts))


def read_mlflow(tracker: MlflowTracker, run_id: str) -> Record:
    from gerbil_tune.tracking.store import connect

    client = connect(tracker.uri)
    run = client.get_run(run_id)
    history = {
        name: [(m.step, m.value) for m in client.get_metric_history(run_id, name)]
        for name in run.data.metrics
        if name != EPOCH_METRIC
    }

    def walk(folder: str | None) -> set[str]:
        entries = client.list_artifacts(run_id, folder)
        files = {entry.path for entry in entries if not entry.is_dir}
        return files.union(*(walk(entry.path) for entry in entries if entry.is_dir))

    return Record(
        run.data.tags.get("mlflow.parentRunId"),
        run.data.params,
        run.data.tags,
        history,
        {name: value for name, value in run.data.metrics.items() if name != EPOCH_METRIC},
        walk(None),
    )


@pytest.fixture(params=["memory", "mlflow"])
def tracker(request: pytest.FixtureRequest, mlflow_store: str) -> Tracker:
    return MemoryTracker() if request.param == "memory" else MlflowTracker(mlflow_store)


@pytest.fixture
def read(tracker: Tracker) -> Callable[[str], Record]:
    if isinstance(tracker, MemoryTracker):
        return lambda run_id: read_memory(tracker, run_id)
    assert isinstance(tracker, MlflowTracker)
    return lambda run_id: read_mlflow(tracker, run_id)


def epoch(number: int, **metrics: float) -> RunUpdate:
    return RunUpdate(epochs={number: EpochMetrics(now_ms(), metrics)})


def reopened(tracker: Tracker) -> Tracker:
    """The record as a new process finds it."""
    return tracker if isinstance(tracker, MemoryTracker) else MlflowTracker(tracker.uri)


@pytest.fixture
def name() -> str:
    return f"study-{next(_numbers)}"


def test_trials_are_children_of_their_study(tracker, read, name):
    study_run = tracker.open_study(
        name, name, {"trials": 2, "search/space": "s.yaml"}, {"user": "lab"}
    )
    for number in range(2):
        tracker.write(number, RunUpdate({"model/kind": "gcc-net"}, state="running"))

    study = read(study_run)
    assert study.parent_id is None
    assert study.parameters == {"trials": "2", "search/space": "s.yaml"}
    assert study.tags["gerbil_tune.study"] == name
    assert study.tags["gerbil_tune.study_id"] == name
    assert study.tags["user"] == "lab"
    recorded = tracker.recorded()
    assert set(recorded) == {0, 1}
    assert len({study_run, *(run.run_id for run in recorded.values())}) == 3
    for number, run in recorded.items():
        assert (run.state, run.last_epoch) == ("running", -1)
        trial = read(run.run_id)
        assert trial.parent_id == study_run
        assert trial.parameters == {"model/kind": "gcc-net"}
        assert trial.tags["gerbil_tune.trial"] == str(number)
        assert trial.tags["gerbil_tune.state"] == "running"


def test_a_study_is_known_by_its_id_not_by_its_name(tracker, name):
    first = tracker.open_study(name, f"{name} a", {}, {})
    tracker.write(0, RunUpdate(state="complete"))
    assert tracker.open_study(name, f"{name} b", {}, {}) != first
    assert tracker.recorded() == {}
    later = reopened(tracker)
    assert later.open_study(name, f"{name} a", {}, {}) == first
    assert set(later.recorded()) == {0}


def test_a_changed_parameter_keeps_its_first_value_and_says_so(tracker, read, name):
    tracker.open_study(name, name, {"trials": 10}, {})
    study = read(reopened(tracker).open_study(name, name, {"trials": 20, "workers": 1}, {}))
    assert study.parameters == {"trials": "10", "workers": "1"}
    assert study.tags["gerbil_tune.changed/trials"] == "20"


def test_epochs_are_recorded_once_and_in_order(tracker, read, name):
    tracker.open_study(name, name, {}, {})
    for number, value in [(0, 9.0), (1, 8.0), (1, 7.0), (0, 6.0), (2, 5.0)]:
        tracker.write(0, epoch(number, val_nll=value))
    run = tracker.recorded()[0]
    assert run.last_epoch == 2
    assert read(run.run_id).history == {"val_nll": [(0, 9.0), (1, 8.0), (2, 5.0)]}


def test_many_epochs_at_once_are_all_recorded(tracker, read, name):
    tracker.open_study(name, name, {}, {})
    at_ms = now_ms()
    metrics = {f"val_{i}": float(i) for i in range(40)}
    tracker.write(0, RunUpdate(epochs={n: EpochMetrics(at_ms + n, metrics) for n in range(60)}))
    history = read(tracker.recorded()[0].run_id).history
    assert set(history) == set(metrics)
    assert all([step for step, _ in values] == [*range(60)] for values in history.values())


def test_whatever_is_said_twice_is_recorded_once(tracker, read, name):
    tracker.open_study(name, name, {}, {})
    update = epoch(1, val_nll=2.0)
    update.add(RunUpdate({"a": 1}, summary={"seconds": 3.0}, tags={"b": "c"}, state="complete"))
    tracker.write(5, update)
    once = read(tracker.recorded()[5].run_id)
    later = reopened(tracker)
    later.open_study(name, name, {}, {})
    for again in (tracker, later):
        again.write(5, update)
        assert read(again.recorded()[5].run_id) == once


def test_a_resumed_trial_goes_on_in_its_run(tracker, read, name):
    tracker.open_study(name, name, {}, {})
    tracker.write(4, RunUpdate({"model/kind": "gcc-net"}, state="running"))
    tracker.write(4, epoch(0, train_loss=3.0))
    tracker.write(4, epoch(1, train_loss=2.0))
    tracker.write(4, RunUpdate(state="interrupted"))
    run_id = tracker.recorded()[4].run_id
    assert tracker.recorded()[4] == (run_id, "interrupted", 1)

    later = reopened(tracker)
    later.open_study(name, name, {}, {})
    later.write(4, RunUpdate({"model/kind": "gcc-net"}, state="running"))
    # Training repeats epoch 1, because its last checkpoint is older than its last report.
    later.write(4, epoch(1, train_loss=2.5))
    later.write(4, epoch(2, train_loss=1.0))
    assert later.recorded()[4] == (run_id, "running", 2)
    assert read(run_id).history == {"train_loss": [(0, 3.0), (1, 2.0), (2, 1.0)]}


@pytest.mark.parametrize(
    ("state", "reason"),
    [("complete", ""), ("pruned", "rung 3"), ("failed", "loss is NaN"), ("paused", "rung 1")],
)
def test_the_end_of_a_trial_says_how_and_why(tracker, read, name, state, reason):
    study_run = tracker.open_study(name, name, {}, {})
    tracker.write(0, RunUpdate(state=state, tags={"gerbil_tune.reason": reason}))
    tags = read(tracker.recorded()[0].run_id).tags
    assert tags["gerbil_tune.state"] == state
    assert tags["gerbil_tune.reason"] == reason
    tracker.write(None, RunUpdate(state="complete"))
    assert read(study_run).tags["gerbil_tune.state"] == "complete"
    assert tracker.recorded()[0].state == state


def test_a_summary_counts_for_the_run_as_a_whole(tracker, read, name):
    tracker.open_study(name, name, {}, {})
    tracker.write(0, epoch(7, val_nll=30.0))
    # Best of all epochs under the name that epochs use, and twice within a millisecond.
    tracker.write(0, RunUpdate(summary={"val_nll": 20.0, "seconds": 5.0}, tags={"bundle": "b"}))
    tracker.write(0, RunUpdate(summary={"seconds": 4.0}))
    record = read(tracker.recorded()[0].run_id)
    assert record.latest == {"val_nll": 20.0, "seconds": 4.0}
    assert record.tags["bundle"] == "b"


def test_values_that_are_not_finite_are_told_and_not_drawn(tracker, read, name):
    tracker.open_study(name, name, {}, {})
    tracker.write(0, epoch(3, train_loss=float("nan"), grad_norm=float("inf"), a=1.0))
    record = read(tracker.recorded()[0].run_id)
    assert record.history == {"a": [(3, 1.0)]}
    assert record.tags["gerbil_tune.non_finite"] == "train_loss, grad_norm in epoch 3"


def test_files_and_folders_are_kept(tracker, read, name, tmp_path: Path):
    (tmp_path / "figures" / "deep").mkdir(parents=True)
    for file in ("report.html", "figures/a.html", "figures/deep/b.html"):
        (tmp_path / file).write_text(file)
    run_id = tracker.open_study(name, name, {}, {})
    tracker.log_artifact(tmp_path / "report.html")
    tracker.log_artifact(tmp_path / "report.html", "copies")
    tracker.log_artifact(tmp_path / "figures", "copies")
    assert read(run_id).artifacts == {
        "report.html",
        "copies/report.html",
        "copies/figures/a.html",
        "copies/figures/deep/b.html",
    }
    with pytest.raises(LaunchError, match=r"missing\.html cannot be kept"):
        tracker.log_artifact(tmp_path / "missing.html")


def test_a_trial_needs_a_study(tracker):
    with pytest.raises(RuntimeError, match="open_study"):
        tracker.write(0, RunUpdate(state="running"))
