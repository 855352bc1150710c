"""A run that was killed and started again is the run that was never killed."""

import contextlib
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gerbil_tune.data.splits.splits import Splits
from gerbil_tune.errors import NonFiniteLossError
from gerbil_tune.training.checkpoints import CHECKPOINTS, remove_checkpoints
from gerbil_tune.training.loop import train_loop
from gerbil_tune.training.session import InProcessSession
from gerbil_tune.training.state import TrainState
from gerbil_tune.training.within_epoch import CheckpointClock, Due

CPU = torch.device("cpu")
EPOCHS = 4
OPTIMIZERS = [
    {"kind": "adamw", "learning_rate": 3e-3},
    {"kind": "sgd", "learning_rate": 1e-2, "momentum": 0.9},
]
CONSTANT = {"augmentation": {"noise_prob": 0.0}, "data": {"crop_length": 1000}}
STREAMED: dict = {}
KINDS = ("mirror", "polarity", "gain", "noise", "low_frequency", "mask", "dropout", "shift")
EVERYTHING = {"augmentation": {f"{kind}_prob": 0.5 for kind in KINDS}}
OFTEN = {"checkpoint_interval_s": 1e-9}
BATCH_NORM = {
    "kind": "simplenet",
    "conv": {
        "channels": [4],
        "kernel_sizes": [9],
        "downsample": [True],
        "dilations": [1],
        "normalization": "batch",
    },
}
by_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: o["kind"])


class KilledError(Exception):
    """In place of a signal."""


def kill_at(epoch):
    def on_report(metrics):
        if metrics["epoch"] == epoch:
            raise KilledError

    return on_report


def interrupted(run_job, job, epoch):
    with pytest.raises(KilledError):
        run_job(job, kill_at(epoch))
    return job


def results(job):
    """Everything that a finished run leaves, without the timings."""
    found = {
        which: load_file(job.run_dir / f"{which}_weights.safetensors")
        for which in ("init", "best", "final")
    }
    return {
        f"{which}/{name}": value for which, part in found.items() for name, value in part.items()
    }


def history(job):
    lines = (job.run_dir / "metrics.jsonl").read_text().splitlines()
    timing = ("epoch_s", "train_events_per_s", "predict_ms_per_event")
    return [{k: v for k, v in json.loads(x).items() if k not in timing} for x in lines]


def assert_same_results(job, expected):
    found, wanted = results(job), results(expected)
    assert found.keys() == wanted.keys()
    different = [name for name in found if not torch.equal(found[name], wanted[name])]
    assert different == []


@pytest.fixture
def few_splits(easy_splits):
    """Three steps an epoch."""
    train, validation = easy_splits.train, easy_splits.validation
    return Splits(train.subset(np.arange(50)), validation.subset(np.arange(15)), None)


@pytest.fixture
def long_job(make_job, few_splits):
    """Factory of jobs that there is time to kill."""

    def make(name="run", training=None, **sections):
        training = {"epochs": EPOCHS, "global_batch_size": 16, **(training or {})}
        return make_job(name, splits=few_splits, training=training, **sections)

    return make


@pytest.fixture
def undisturbed(long_job, run_job):
    """Factory of finished runs that nothing interrupted, with what they reported."""

    def make(**sections):
        job = long_job("undisturbed", **sections)
        return job, run_job(job)

    return make


@by_optimizer
@pytest.mark.parametrize("sections", [STREAMED, CONSTANT], ids=["streamed", "features-in-memory"])
def test_a_kill_after_any_epoch_changes_nothing(
    long_job, run_job, undisturbed, optimizer, sections
):
    expected, reports = undisturbed(optimizer=optimizer, **sections)
    for epoch in range(1, EPOCHS + 1):
        job = long_job(f"killed-{epoch}", optimizer=optimizer, **sections)
        interrupted(run_job, job, epoch)
        assert run_job(job) == reports[epoch - 1 :]
        assert_same_results(job, expected)
        assert history(job) == reports


def test_a_kill_after_every_epoch_changes_nothing(long_job, run_job, undisturbed):
    expected, reports = undisturbed()
    job = long_job()
    for epoch in range(1, EPOCHS + 1):
        interrupted(run_job, job, epoch)
    run_job(job)
    assert_same_results(job, expected)
    assert history(job) == reports


def test_a_kill_before_the_next_checkpoint_repeats_what_came_after_the_last(
    long_job, run_job, undisturbed, monkeypatch
):
    expected, reports = undisturbed()
    job = long_job()
    kill_at_step(run_job, job, 8, monkeypatch)  # in the third epoch
    assert checkpoints(job) == ["epoch-00001", "epoch-00002"]
    assert run_job(job) == reports[1:]
    assert_same_results(job, expected)


@contextlib.contextmanager
def killed_at_step(number, monkeypatch):
    """Let a run die when a step, counted from 1, is about to be done; gives the list of those done."""
    import gerbil_tune.training.loop as loop

    done, step = [], loop.optimizer_step

    def killed_step(*arguments):
        if len(done) + 1 == number:
            raise KilledError
        done.append(len(done) + 1)
        return step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "optimizer_step", killed_step)
        yield done


def kill_at_step(run_job, job, number, monkeypatch):
    with killed_at_step(number, monkeypatch):
        interrupted(run_job, job, EPOCHS + 1)


def checkpoints(job):
    return sorted(path.name for path in (job.run_dir / CHECKPOINTS).iterdir())


class TestWithinAnEpoch:
    """Three steps an epoch, and a checkpoint after each: step s is the (s % 3)-th of epoch s // 3."""

    @by_optimizer
    @pytest.mark.parametrize("sections", [STREAMED, CONSTANT], ids=["streamed", "memory"])
    def test_a_kill_at_any_step_changes_nothing(
        self, long_job, run_job, undisturbed, monkeypatch, optimizer, sections
    ):
        expected, reports = undisturbed(optimizer=optimizer, **sections)
        for step in (2, 4, 9):
            job = long_job(f"killed-{step}", optimizer=optimizer, training=OFTEN, **sections)
            kill_at_step(run_job, job, step, monkeypatch)
            assert run_job(job) == reports[max(0, (step - 1) // 3 - 1) :]
            assert_same_results(job, expected)
            assert history(job) == reports

    def test_a_kill_at_every_step_changes_nothing(
        self, long_job, run_job, undisturbed, monkeypatch
    ):
        """Each process does one step and dies at the next."""
        expected, reports = undisturbed(**EVERYTHING)
        job = long_job(training=OFTEN, **EVERYTHING)
        for _ in range(3 * EPOCHS - 1):
            kill_at_step(run_job, job, 2, monkeypatch)
        run_job(job)
        assert_same_results(job, expected)
        assert history(job) == reports

    def test_no_step_is_done_twice(self, long_job, run_job, monkeypatch):
        job = long_job(training=OFTEN)
        kill_at_step(run_job, job, 6, monkeypatch)
        assert checkpoints(job) == ["epoch-00001-step-000001", "epoch-00001-step-000002"]
        with killed_at_step(None, monkeypatch) as done:
            run_job(job)
        assert len(done) == 3 * EPOCHS - 5

    def test_a_kill_in_the_evaluation_repeats_no_step(
        self, long_job, run_job, undisturbed, monkeypatch
    ):
        import gerbil_tune.training.loop as loop

        expected, reports = undisturbed()
        job = long_job(training=OFTEN)

        def killed_evaluation(*_):
            raise KilledError

        with monkeypatch.context() as patch:
            patch.setattr(loop, "evaluate", killed_evaluation)
            interrupted(run_job, job, EPOCHS)
        assert checkpoints(job) == ["epoch-00000-step-000002", "epoch-00000-step-000003"]
        assert run_job(job) == reports
        assert_same_results(job, expected)
        assert history(job) == reports

    @pytest.mark.parametrize("torn", ["state.safetensors", "state.json"])
    def test_a_torn_checkpoint_falls_back_to_the_one_before(
        self, long_job, run_job, undisturbed, monkeypatch, torn
    ):
        expected, reports = undisturbed()
        job = long_job(training=OFTEN)
        kill_at_step(run_job, job, 5, monkeypatch)
        assert checkpoints(job) == ["epoch-00001", "epoch-00001-step-000001"]
        (job.run_dir / CHECKPOINTS / "epoch-00001-step-000001" / torn).write_bytes(b"{")
        assert run_job(job) == reports
        assert_same_results(job, expected)

    def test_batch_statistics_are_restored(self, long_job, run_job, undisturbed, monkeypatch):
        expected, _ = undisturbed(model=BATCH_NORM)
        job = long_job(model=BATCH_NORM, training=OFTEN)
        kill_at_step(run_job, job, 6, monkeypatch)
        run_job(job)
        assert_same_results(job, expected)

    def test_a_loss_that_diverged_is_not_kept(self, long_job, run_job):
        job = long_job(training=OFTEN, optimizer={"kind": "sgd", "learning_rate": 1e30})
        with pytest.raises(NonFiniteLossError, match=r"in epoch 1; try a lower"):
            run_job(job)
        for name in checkpoints(job):
            state = json.loads((job.run_dir / CHECKPOINTS / name / "state.json").read_text())
            assert np.isfinite(state["progress"]["partial"]["loss_sum"])

    def test_time_counts_on(self, long_job, run_job, monkeypatch):
        """What was done before the interruption is in the epoch's duration and rate."""
        job = long_job(training=OFTEN)
        kill_at_step(run_job, job, 3, monkeypatch)
        path = job.run_dir / CHECKPOINTS / "epoch-00000-step-000002" / "state.json"
        state = json.loads(path.read_text())
        assert state["progress"]["partial"]["num_events"] == 32
        state["progress"]["partial"]["seconds"] = 1000.0
        path.write_text(json.dumps(state))
        reports = []
        train_loop(job, InProcessSession(reports.append, CPU))
        assert 1000 < reports[0]["epoch_s"] < 1010
        assert reports[0]["train_events_per_s"] == pytest.approx(48 / 1000, rel=0.01)
        assert reports[1]["epoch_s"] < 100


@pytest.mark.parametrize(
    ("interval_s", "expected"), [(0.5, [False, True, False, True]), (9.0, [False] * 4)]
)
def test_checkpoints_are_due_by_the_clock(monkeypatch, interval_s, expected):
    now_s = 100.0
    monkeypatch.setattr("time.perf_counter", lambda: now_s)
    clock = CheckpointClock(interval_s, InProcessSession(print, CPU))
    due = []
    for _ in range(4):
        now_s += 0.3
        due.append(clock.due() is Due.SAVE)
        if due[-1]:
            clock.restart()
    assert due == expected


def test_a_full_disk_at_a_checkpoint_loses_one_epoch(long_job, run_job, undisturbed, monkeypatch):
    expected, reports = undisturbed()
    job = long_job()
    save = TrainState.save

    def full_disk(state, run_dir):
        if state.progress.epoch == 3:
            raise OSError(28, "No space left on device")
        return save(state, run_dir)

    with monkeypatch.context() as patch:
        patch.setattr(TrainState, "save", full_disk)
        with pytest.raises(OSError, match="No space"):
            run_job(job)
    assert run_job(job) == reports[1:]
    assert_same_results(job, expected)
    epochs = [line["epoch"] for line in history(job)]
    assert epochs == [1, 2, 3, 4]  # the one that was noted without a checkpoint is done again


@pytest.mark.parametrize("torn", ["state.safetensors", "state.json"])
@pytest.mark.parametrize("keep", [0.0, 0.5, None])
def test_a_torn_checkpoint_falls_back_to_the_one_before(long_job, run_job, undisturbed, torn, keep):
    expected, reports = undisturbed()
    job = interrupted(run_job, long_job(), 3)
    path = job.run_dir / CHECKPOINTS / "epoch-00003" / torn
    if keep is None:
        path.unlink()
    else:
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * keep)])
    assert run_job(job) == reports[1:]
    assert_same_results(job, expected)


def test_no_readable_checkpoint_begins_anew(long_job, run_job, undisturbed):
    expected, reports = undisturbed()
    job = interrupted(run_job, long_job(), 2)
    for path in (job.run_dir / CHECKPOINTS).glob("epoch-*/state.json"):
        path.write_text("{")
    assert run_job(job) == reports
    assert_same_results(job, expected)


def test_a_finished_run_reports_its_end_again_and_trains_no_more(long_job, run_job):
    """The report may have been lost with the process: a study would wait for it for ever."""
    job = long_job()
    reports = run_job(job)
    before = results(job)
    for which in ("best", "final"):
        (job.run_dir / f"{which}_weights.safetensors").unlink()
    assert run_job(job) == reports[-1:]
    assert reports[-1]["training_done"] == 1.0
    after = results(job)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert len(history(job)) == EPOCHS


def test_at_most_two_checkpoints_stay_and_no_half_one(long_job, run_job):
    job = long_job()
    folder = job.run_dir / CHECKPOINTS
    (folder / ".partial" / "junk").mkdir(parents=True)  # of a run that was killed while it wrote
    run_job(job)
    assert sorted(path.name for path in folder.iterdir()) == ["epoch-00003", "epoch-00004"]
    names = {path.name for path in (folder / "epoch-00004").iterdir()}
    assert names == {"state.safetensors", "state.json"}  # no pickle
    remove_checkpoints(job.run_dir)
    remove_checkpoints(job.run_dir)
    assert not folder.exists()


def test_a_run_folder_may_be_moved(long_job, run_job, undisturbed, tmp_path):
    expected, _ = undisturbed()
    job = interrupted(run_job, long_job("before"), 2)
    moved = long_job("after")
    shutil.move(job.run_dir, moved.run_dir)
    run_job(moved)
    assert_same_results(moved, expected)


def test_batch_statistics_are_restored(long_job, run_job, undisturbed):
    expected, _ = undisturbed(model=BATCH_NORM)
    job = long_job(model=BATCH_NORM)
    interrupted(run_job, job, 2)
    run_job(job)
    assert_same_results(job, expected)
    assert any(name.endswith("running_mean") for name in results(job))


def test_the_returned_progress_is_that_of_the_whole_run(long_job, run_job, undisturbed):
    expected, _ = undisturbed()
    session = InProcessSession(lambda metrics: None, CPU)
    finished = train_loop(expected, session)
    job = interrupted(run_job, long_job(), 3)
    progress = train_loop(job, session)
    assert (progress.epoch, progress.best_value) == (EPOCHS, finished.best_value)
    assert progress.best_metrics["epoch"] == finished.best_metrics["epoch"]
