"""A search that really runs, faults that are really injected, and what is left afterwards.

A search runs by the real command line in a session (``setsid``) of its own. All its processes keep the number
of that session, whoever their parent is by now, so each can be found, and only these are ever killed.
"""

import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import optuna

from gerbil_tune.tracking.store import connect, known_warnings_ignored
from tests.integration.command_line import clean_environment, command, run

SPACE = """
name: faults
study:
  trials: 2
  refit_epochs: 6
  sampler: {kind: random, seed: 5}
  trial_scheduler: {kind: none}
base:
  model: {kind: gcc-net, lags: {num_channels: 8, hidden: 16, num_blocks: 2}}
  training: {epochs: 40, global_batch_size: 8}
parameters:
  optimizer/learning_rate: {type: float, low: 1.0e-4, high: 1.0e+30, log: true}
  features/gcc/envelope: {type: categorical, choices: [false, true]}
points:
  - {optimizer/learning_rate: 3.0e-4, features/gcc/envelope: false}
  - {optimizer/learning_rate: 6.0e-3, features/gcc/envelope: true}
"""
"""Two trials of 40 epochs of 12 steps, some 3 s each, then a refit; nothing in it depends on chance."""

REFIT = "refit/trial-00001-6-epochs"
"""Folder of that refit's run, in the study's."""

EVENTS = (("train_set", 96, 1), ("val_set", 32, 2))
"""Name, events and seed of each part; without a test set the search ends sooner."""

Row = dict[str, float]
Kind = Literal["driver", "trial", "controller", "worker", "raylet", "gcs", "other"]
_TITLES: dict[Kind, str] = {
    "trial": r"^ray::ImplicitFunc",
    "controller": r"^ray::TrainController",
    "worker": r"^ray::RayTrainWorker",
    "raylet": r"/raylet/raylet ",
    "gcs": r"/gcs/gcs_server ",
}
_POLL_S = 0.005
_TIMES = ("epoch_s", "train_events_per_s", "predict_ms_per_event", "best_predict_ms_per_event")
"""Metrics that no two runs share."""
_ENDED = {
    "COMPLETE": ("complete", "FINISHED"),
    "PRUNED": ("pruned", "FINISHED"),
    "FAIL": ("failed", "FAILED"),
}
"""State tag and status of an MLflow run, by Optuna's state of its trial."""


def make_site(folder: Path, space: str = SPACE) -> Path:
    """Write ``space.yaml`` and a small simulated data set ``data/`` into a folder."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "space.yaml").write_text(space)
    for name, events, seed in EVENTS:
        run(
            folder,
            *("simulate", f"data/{name}.h5", "--events", str(events), "--seed", str(seed)),
            *("--duration-ms", "20", "40", "--processes", "1"),
        )
    return folder


def search_arguments(name: str, *more: str, space: str = "space.yaml") -> tuple[str, ...]:
    """The command line of a search by the name ``name``, one trial at a time."""
    return ("search", space, "--data", "data", "--name", name, "--max-concurrent", "1", *more)


def trial_dir(folder: Path, study: str, number: int) -> Path:
    """Folder of a trial."""
    return folder / "studies" / study / "trials" / f"{number:05d}"


def checkpoints(run_dir: Path) -> list[Path]:
    """The checkpoints of a run by their names, the newest first."""
    return sorted((run_dir / "checkpoints").glob("epoch-*"), reverse=True)


def place(run_dir: Path) -> tuple[int, int]:
    """Epochs done, and steps of the next one, by the name of the newest checkpoint."""
    for folder in checkpoints(run_dir):
        _, epoch, *step = folder.name.split("-")
        return int(epoch), int(step[1]) if step else 0
    return 0, 0


def num_epochs_told(run_dir: Path) -> int:
    """Lines of a run's history."""
    history = run_dir / "metrics.jsonl"
    return history.read_text().count("\n") if history.exists() else 0


@dataclass(frozen=True)
class Process:
    """A process of a search.

    Attributes:
        pid: Its id.
        kind: What it is to the search.
        title: Its command line, or what it calls itself.
        rank: Of a Ray Train worker, once it has said so; else None.
    """

    pid: int
    kind: Kind
    title: str
    rank: int | None = None


class RunningSearch:
    """A command that runs in the background, in a session of its own; use it in a ``with`` statement.

    Args:
        folder: Working directory.
        arguments: Of ``gerbil-tune``; see ``search_arguments``.
        environment: Variables laid over the usual ones.

    Attributes:
        pid: Of the driver; also the number of the session.
        seconds: How long it ran, once it has ended.
    """

    def __init__(
        self, folder: Path, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self._output = folder / f"output-{time.monotonic_ns()}.txt"
        self._started = time.monotonic()
        self.seconds = 0.0
        with self._output.open("w") as output:
            self._process = subprocess.Popen(
                command(*arguments),
                cwd=folder,
                env={**clean_environment(), **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def __enter__(self) -> "RunningSearch":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave no process behind, whatever has happened."""
        for process in self.processes():
            _signal(process.pid, signal.SIGKILL)
        self._process.wait()

    def output(self) -> str:
        """What it has printed so far."""
        return self._output.read_text(errors="replace")

    def is_over(self) -> bool:
        """Whether the driver has ended."""
        return self._process.poll() is not None

    def wait_for(self, condition: Callable[[], Any], what: str, timeout_s: float = 240.0) -> Any:
        """Wait for a condition while the search runs, and return what it returned.

        Raises:
            AssertionError: If the search ends before, or the time is over.
        """
        deadline = time.monotonic() + timeout_s
        while not (found := condition()):
            assert not self.is_over(), f"the search ended before {what}\n{self.output()}"
            assert time.monotonic() < deadline, f"no {what} in {timeout_s} s\n{self.output()}"
            time.sleep(_POLL_S)
        return found

    def wait_for_epoch(self, run_dir: Path, epoch: int) -> None:
        """Wait until the checkpoint of an epoch of a run is written."""
        self.wait_for(lambda: place(run_dir)[0] >= epoch, f"epoch {epoch} of {run_dir.name}")

    def wait_for_process(self, kind: Kind, rank: int | None = None) -> Process:
        """Wait for a process of a kind, and return it."""
        what = kind if rank is None else f"{kind} of rank {rank}"
        found: list[Process] = self.wait_for(lambda: self.of_kind(kind, rank), f"a {what}")
        return found[0]

    def processes(self) -> list[Process]:
        """All that live, the driver first if it does."""
        found = [
            Process(pid, self._kind(pid, title), title) for pid, title in _of_session(self.pid)
        ]
        if not any(process.kind == "worker" for process in found):
            return found
        ranks = _ranks(found)
        return [Process(p.pid, p.kind, p.title, ranks.get(p.pid)) for p in found]

    def of_kind(self, kind: Kind, rank: int | None = None) -> list[Process]:
        """Those of a kind that live, and of a rank if that is given."""
        return [
            process
            for process in self.processes()
            if process.kind == kind and rank in (None, process.rank)
        ]

    def send_signal(self, number: int, *, whole_group: bool = False) -> None:
        """Send a signal to the driver, or to its process group as a terminal's Ctrl-C does."""
        if whole_group:
            os.killpg(self.pid, number)
        else:
            self._process.send_signal(number)

    def send_signal_to_all(self, number: int) -> None:
        """Send a signal to every process, as a batch system does that ends a job."""
        for process in self.processes():
            _signal(process.pid, number)

    def kill(self, kind: Kind, rank: int | None = None, *, number: int = signal.SIGKILL) -> Process:
        """Kill -9 the one process of a kind (and rank), or send it another signal; return which it was."""
        (process,) = self.of_kind(kind, rank)
        _signal(process.pid, number)
        return process

    def kill_driver(self) -> float:
        """Kill -9 the driver, and wait until all that it has started is gone; return how long that took."""
        self.send_signal(signal.SIGKILL)
        assert self._process.wait() == -signal.SIGKILL
        return self.wait_until_gone()

    def wait_until_gone(self, timeout_s: float = 30.0) -> float:
        """Wait until nothing that trains, writes or decides lives; return how long that took.

        Ray's agents may outlive a raylet that was killed: they ask for its head for a minute before they end.
        """
        began = time.monotonic()
        while left := [process for process in self.processes() if process.kind != "other"]:
            assert time.monotonic() - began < timeout_s, f"still there after {timeout_s} s: {left}"
            time.sleep(0.05)
        return time.monotonic() - began

    def finish(self, code: int = 0, timeout_s: float = 400.0) -> str:
        """Wait for the end, check the exit code and that nobody is left; return what it printed."""
        try:
            got = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"no end after {timeout_s} s\n{self.output()}") from None
        self.seconds = time.monotonic() - self._started
        assert got == code, f"exit code {got}\n{self.output()}"
        assert "Traceback" not in self.output(), self.output()
        self.wait_until_gone()
        return self.output()

    def _kind(self, pid: int, title: str) -> Kind:
        if pid == self.pid:
            return "driver"
        return next((kind for kind, text in _TITLES.items() if re.search(text, title)), "other")


def _of_session(session: int) -> Iterator[tuple[int, str]]:
    """Id and title of the living processes of a session."""
    for folder in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            # The second field is the program's name in brackets, which may hold anything.
            state, _, _, number, *_ = (folder / "stat").read_text().rpartition(") ")[2].split()
            title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            title = title.rstrip()
        except OSError:  # it has just ended
            continue
        if int(number) == session and state not in "ZX":
            yield int(folder.name), title


def _ranks(processes: Collection[Process]) -> dict[int, int]:
    """Rank of each Ray Train worker, from its own log."""
    for process in processes:
        logs = re.search(r"--log_dir=(\S+)", process.title) if process.kind == "gcs" else None
        if logs is None:
            continue
        ranks = {}
        for path in Path(logs[1]).glob("train/ray-train-*worker-*.log"):
            for line in path.read_text(errors="replace").splitlines():
                if (pid := re.search(r'"process": (\d+)', line)) and (
                    rank := re.search(r'"world_rank": (\d+)', line)
                ):
                    ranks[int(pid[1])] = int(rank[1])
        return ranks
    return {}


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it has just ended


@dataclass(frozen=True)
class TrialRecord:
    """A trial in Optuna's storage; ``history`` is that of its folder, line by line."""

    number: int
    state: str
    params: dict[str, Any]
    value: float | None
    curve: dict[int, float]
    reason_kind: str
    reason: str
    mishaps: tuple[str, ...]
    paused_at: int
    history: tuple[Row, ...]


@dataclass(frozen=True)
class RunRecord:
    """A run in MLflow; ``steps`` are those of the study's metric, in the order of the store."""

    run_id: str
    state: str
    status: str
    last_epoch: int
    steps: tuple[int, ...]


@dataclass(frozen=True)
class FinalState:
    """What a study has left.

    Attributes:
        trials: In the order of their numbers.
        runs: Of each trial; more than one would be a fault.
        parents: Runs of the study as a whole.
        refits: History of each final training by the name of its folder.
    """

    trials: tuple[TrialRecord, ...]
    runs: dict[int, list[RunRecord]] = field(default_factory=dict)
    parents: tuple[RunRecord, ...] = ()
    refits: dict[str, tuple[Row, ...]] = field(default_factory=dict)

    def optuna(self) -> str:
        """Say how many trials are in which state, and why, for the table."""
        found = Counter(f"{t.state} {t.reason_kind}".strip() for t in self.trials)
        return ", ".join(f"{count} {what}" for what, count in found.items())

    def mlflow(self) -> str:
        """Say the same of the runs."""
        found = Counter(run.state for runs in self.runs.values() for run in runs)
        told = ", ".join(f"{count} {what}" for what, count in found.items())
        return f"{len(self.parents)} parent, {told}"


def stored(folder: Path, study: str) -> optuna.Study:
    """Open a study for reading."""
    return optuna.load_study(
        study_name=study, storage=f"sqlite:///{folder}/studies/{study}/optuna.db"
    )


def trial_records(folder: Path, study: str) -> tuple[TrialRecord, ...]:
    """The trials of a study as they are now."""
    return tuple(
        TrialRecord(
            trial.number,
            trial.state.name,
            trial.params,
            trial.value if trial.state.name == "COMPLETE" else None,
            dict(trial.intermediate_values),
            str(trial.user_attrs.get("reason_kind", "")),
            str(trial.user_attrs.get("reason", "")),
            tuple(trial.user_attrs.get("mishaps", ())),
            int(trial.user_attrs.get("paused_at", 0)),
            read_history(trial_dir(folder, study, trial.number)),
        )
        for trial in stored(folder, study).trials
    )


def final_state(folder: Path, study: str, tracking_uri: str | None = None) -> FinalState:
    """Read everything that a study has left; it must not run any more."""
    parents, runs = [], {}
    with known_warnings_ignored():
        client = connect(tracking_uri or f"sqlite:///{folder}/mlflow.db")
        experiment = client.get_experiment_by_name(study)
        for found in client.search_runs([experiment.experiment_id], max_results=1000):
            tags, metrics = found.data.tags, found.data.metrics
            told = client.get_metric_history(found.info.run_id, "val_error_median_mm")
            record = RunRecord(
                found.info.run_id,
                tags.get("gerbil_tune.state", ""),
                found.info.status,
                int(metrics.get("epoch", 0)),
                tuple(metric.step for metric in told),
            )
            if "mlflow.parentRunId" in tags:
                runs.setdefault(int(tags["gerbil_tune.trial"]), []).append(record)
            else:
                parents.append(record)
    refits = (folder / "studies" / study / "refit").glob("trial-*")
    return FinalState(
        trial_records(folder, study),
        dict(sorted(runs.items())),
        tuple(parents),
        {path.name: read_history(path) for path in sorted(refits)},
    )


def read_history(run_dir: Path) -> tuple[Row, ...]:
    """The lines of a run's history; each must be whole."""
    history = run_dir / "metrics.jsonl"
    text = history.read_text() if history.exists() else ""
    return tuple(json.loads(line) for line in text.splitlines())


def curve_of(history: tuple[Row, ...]) -> list[Row]:
    """A history without what two runs cannot share, and without lines that a kill has repeated exactly.

    A kill between an epoch's line and its checkpoint repeats the epoch: it must say the same again.
    """
    rows: dict[float, Row] = {}
    for line in history:
        row = {name: value for name, value in line.items() if name not in _TIMES}
        assert rows.setdefault(row["epoch"], row) == row, f"two results of one epoch: {row}"
    return list(rows.values())


def num_repeated(history: tuple[Row, ...]) -> int:
    """Lines that repeat an epoch."""
    return len(history) - len({row["epoch"] for row in history})


def assert_consistent(state: FinalState, *, study_state: str = "complete") -> None:
    """Assert that Optuna, MLflow and the trials' histories say the same, and that nothing runs any more."""
    assert [run.state for run in state.parents] == [study_state], state.parents
    assert "RUNNING" not in {run.status for run in state.parents}
    assert set(state.runs) == {trial.number for trial in state.trials}
    for trial in state.trials:
        assert trial.state in _ENDED, trial
        assert len(state.runs[trial.number]) == 1, state.runs[trial.number]
        (found,) = state.runs[trial.number]
        assert (found.state, found.status) == _ENDED[trial.state], (trial, found)
        epochs = list(range(1, max(trial.curve, default=0) + 1))
        assert sorted(trial.curve) == epochs, trial
        assert [row["epoch"] for row in trial.history] == epochs, trial
        # The last step may hold one more value, that of the best epoch, where the names are the same.
        assert sorted(found.steps) == epochs, (trial, found)
        assert found.last_epoch == len(epochs), (trial, found)


def assert_equal_metrics(
    state: FinalState,
    reference: FinalState,
    pairs: Collection[tuple[int, int]] | None = None,
    *,
    refits: bool = True,
) -> None:
    """Assert that trials came out as those of an undisturbed run, to the last bit, in every epoch.

    Args:
        state: After the fault.
        reference: Without any.
        pairs: Numbers of a trial and of its counterpart; default: all, each with its own number.
        refits: Whether the final trainings must be equal too.
    """
    for number, other in pairs or [(trial.number, trial.number) for trial in reference.trials]:
        found, wanted = state.trials[number], reference.trials[other]
        assert found.params == wanted.params
        assert found.state == wanted.state
        assert found.value == wanted.value
        assert found.curve == wanted.curve
        assert curve_of(found.history) == curve_of(wanted.history)
    if refits:
        assert {name: curve_of(rows) for name, rows in state.refits.items()} == {
            name: curve_of(rows) for name, rows in reference.refits.items()
        }


@dataclass(frozen=True)
class Fault:
    """A line of the table at the end."""

    fault: str
    running: str
    lost: str
    optuna: str
    mlflow: str
    metrics: str


FAULTS: list[Fault] = []
EQUAL = "equal to the undisturbed run"


def record_fault(
    *, fault: str, running: str, lost: str, optuna: str, mlflow: str, metrics: str = EQUAL
) -> None:
    """Add a line to the table that is printed when all tests have run."""
    FAULTS.append(Fault(fault, running, lost, optuna, mlflow, metrics))
