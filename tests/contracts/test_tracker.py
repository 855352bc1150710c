"""What every tracker must do, asked of each of them."""

import itertools
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from gerbil_tune.tracking.memory_tracker import MemoryTracker
from gerbil_tune.tracking.mlflow_tracker import MlflowTracker
from gerbil_tune.tracking.tracker import Tracker

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
        run.data.metrics,
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


@pytest.fixture
def name() -> str:
    return f"study-{next(_numbers)}"


def test_trials_are_children_of_their_study(tracker, read, name):
    study_id = tracker.start_study(name, {"trials": 2, "search/space": "s.yaml"}, {"user": "lab"})
    trial_ids = [tracker.start_trial(n, {"model/kind": "gcc-net"}) for n in range(2)]

    study = read(study_id)
    assert study.parent_id is None
    assert study.parameters == {"trials": "2", "search/space": "s.yaml"}
    assert study.tags["gerbil_tune.study"] == name
    assert study.tags["user"] == "lab"
    assert len({study_id, *trial_ids}) == 3
    for number, trial_id in enumerate(trial_ids):
        trial = read(trial_id)
        assert trial.parent_id == study_id
        assert trial.parameters == {"model/kind": "gcc-net"}
        assert trial.tags["gerbil_tune.trial"] == str(number)
        assert trial.tags["gerbil_tune.state"] == "running"


def test_the_same_name_goes_on_in_the_same_study(tracker, name):
    first = tracker.start_study(name, {}, {})
    tracker.end_study("interrupted")
    assert tracker.start_study(name, {}, {}) == first
    assert tracker.start_study(f"{name} other", {}, {}) != first


def test_a_changed_parameter_keeps_its_first_value_and_says_so(tracker, read, name):
    tracker.start_study(name, {"trials": 10}, {})
    study = read(tracker.start_study(name, {"trials": 20, "workers": 1}, {}))
    assert study.parameters == {"trials": "10", "workers": "1"}
    assert study.tags["gerbil_tune.changed/trials"] == "20"


def test_epochs_are_recorded_once_and_in_order(tracker, read, name):
    tracker.start_study(name, {}, {})
    run_id = tracker.start_trial(0, {})
    for epoch, error_mm in [(0, 9.0), (1, 8.0), (1, 7.0), (0, 6.0), (2, 5.0)]:
        tracker.log_epoch(run_id, epoch, {"validation/error_mm": error_mm})
    assert read(run_id).history == {"validation/error_mm": [(0, 9.0), (1, 8.0), (2, 5.0)]}


def test_a_resumed_trial_goes_on_in_its_run(tracker, read, name):
    tracker.start_study(name, {}, {})
    run_id = tracker.start_trial(4, {"model/kind": "gcc-net"})
    tracker.log_epoch(run_id, 0, {"train/nll": 3.0})
    tracker.log_epoch(run_id, 1, {"train/nll": 2.0})
    tracker.end_study("interrupted")
    assert read(run_id).tags["gerbil_tune.state"] == "interrupted"

    later = tracker if isinstance(tracker, MemoryTracker) else MlflowTracker(tracker.uri)
    later.start_study(name, {}, {})
    assert later.start_trial(4, {"model/kind": "gcc-net"}, run_id) == run_id
    assert read(run_id).tags["gerbil_tune.state"] == "running"
    # Training repeats epoch 1, because its last checkpoint is older than its last report.
    later.log_epoch(run_id, 1, {"train/nll": 2.5})
    later.log_epoch(run_id, 2, {"train/nll": 1.0})
    assert read(run_id).history == {"train/nll": [(0, 3.0), (1, 2.0), (2, 1.0)]}


def test_a_run_that_is_gone_is_replaced(tracker, read, name):
    tracker.start_study(name, {}, {})
    run_id = tracker.start_trial(0, {"a": 1}, run_id="0123456789abcdef0123456789abcdef")
    assert run_id != "0123456789abcdef0123456789abcdef"
    assert read(run_id).parameters == {"a": "1"}


@pytest.mark.parametrize(
    ("status", "reason"), [("complete", ""), ("pruned", "rung 3"), ("failed", "loss is NaN")]
)
def test_the_end_of_a_trial_says_how_and_why(tracker, read, name, status, reason):
    tracker.start_study(name, {}, {})
    run_id = tracker.start_trial(0, {})
    tracker.end_trial(run_id, status, reason)
    tags = read(run_id).tags
    assert tags["gerbil_tune.state"] == status
    assert tags.get("gerbil_tune.reason", "") == reason
    tracker.end_study("complete")
    assert read(run_id).tags["gerbil_tune.state"] == status


def test_a_summary_counts_for_the_run_as_a_whole(tracker, read, name):
    tracker.start_study(name, {}, {})
    run_id = tracker.start_trial(0, {})
    tracker.log_epoch(run_id, 7, {"validation/error_mm": 30.0})
    # Best of all epochs under the name that epochs use, and twice within a millisecond.
    tracker.log_summary(run_id, {"validation/error_mm": 20.0, "seconds": 5.0}, {"bundle": "b"})
    tracker.log_summary(run_id, {"seconds": 4.0})
    record = read(run_id)
    assert record.latest == {"validation/error_mm": 20.0, "seconds": 4.0}
    assert record.tags["bundle"] == "b"


def test_values_that_are_not_finite_are_told_and_not_drawn(tracker, read, name):
    tracker.start_study(name, {}, {})
    run_id = tracker.start_trial(0, {})
    tracker.log_epoch(
        run_id, 3, {"train/nll": float("nan"), "train/grad_norm": float("inf"), "a": 1}
    )
    record = read(run_id)
    assert record.history == {"a": [(3, 1.0)]}
    assert record.tags["gerbil_tune.non_finite"] == "train/nll, train/grad_norm in epoch 3"


def test_files_and_folders_are_kept(tracker, read, name, tmp_path: Path):
    (tmp_path / "figures" / "deep").mkdir(parents=True)
    for file in ("report.html", "figures/a.html", "figures/deep/b.html"):
        (tmp_path / file).write_text(file)
    run_id = tracker.start_study(name, {}, {})
    tracker.log_artifact(run_id, tmp_path / "report.html")
    tracker.log_artifact(run_id, tmp_path / "report.html", "copies")
    tracker.log_artifact(run_id, tmp_path / "figures", "copies")
    assert read(run_id).artifacts == {
        "report.html",
        "copies/report.html",
        "copies/figures/a.html",
        "copies/figures/deep/b.html",
    }
    with pytest.raises(FileNotFoundError):
        tracker.log_artifact(run_id, tmp_path / "missing.html")


def test_a_tracker_can_be_pickled_in_the_middle(tracker, read, name):
    tracker.start_study(name, {}, {})
    run_id = tracker.start_trial(0, {})
    tracker.log_epoch(run_id, 0, {"a": 1.0})
    copy = pickle.loads(pickle.dumps(tracker))
    copy.log_epoch(run_id, 0, {"a": 2.0})
    copy.log_epoch(run_id, 1, {"a": 3.0})
    history = (
        read_memory(copy, run_id) if isinstance(copy, MemoryTracker) else read(run_id)
    ).history
    assert history == {"a": [(0, 1.0), (1, 3.0)]}


def test_a_trial_needs_a_study(tracker):
    with pytest.raises(RuntimeError, match="start_study"):
        tracker.start_trial(0, {})
    with pytest.raises(RuntimeError, match="start_study"):
        tracker.end_study("complete")
