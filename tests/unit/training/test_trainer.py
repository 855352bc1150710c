"""What surrounds Ray Train's ``fit``; with Ray itself it runs in the integration tests."""

import os
import signal
import threading
import time

import pytest
import torch

from gerbil_tune.errors import ConfigError, DatasetError, LaunchError, NonFiniteLossError
from gerbil_tune.training import trainer
from gerbil_tune.training.ray_thread import run_until_lost
from gerbil_tune.training.session import InProcessSession
from gerbil_tune.training.trainer import (
    check_shares,
    elastic_workers,
    fewest,
    fit,
    is_done,
    root_error,
    train_with_workers,
    train_worker,
)
from gerbil_tune.training.worker_error import noted_error

DIVERGING = {"kind": "adamw", "learning_rate": 1e30}


@pytest.fixture
def in_this_process(monkeypatch):
    """Let this process be the one worker of a group."""
    monkeypatch.setattr(
        trainer,
        "RayTrainSession",
        lambda stop_file: InProcessSession(print, torch.device("cpu"), stop_file=stop_file),
    )


class Group:
    """Runs the worker here, and anew after errors, as Ray Train does."""

    def __init__(self, job, max_failures=2):
        self.job, self.max_failures, self.begun = job, max_failures, 0

    def fit(self):
        from ray.train.v2.api.exceptions import WorkerGroupError

        for attempt in range(self.max_failures + 1):
            self.begun += 1
            try:
                return train_worker({"job": self.job, "cpus_per_worker": 1})
            except Exception as error:
                if attempt == self.max_failures:
                    raise WorkerGroupError(str(error), {0: error}) from None
        return None


def count_trainings(monkeypatch, raising=None):
    done, loop = [], trainer.train_loop

    def counted(job, session):
        done.append(1)
        if raising is not None:
            raise raising
        return loop(job, session)

    monkeypatch.setattr(trainer, "train_loop", counted)
    return done


def test_a_loss_that_diverges_ends_the_group_at_once(in_this_process, make_job, monkeypatch):
    job = make_job(optimizer=DIVERGING)
    done, group = count_trainings(monkeypatch), Group(job)
    with pytest.raises(NonFiniteLossError, match="optimizer/learning_rate"):
        fit(group, job)
    assert (len(done), group.begun) == (1, 1)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (DatasetError("calls.h5 has gone"), DatasetError),
        (ConfigError("a rule"), ConfigError),
        (torch.OutOfMemoryError("CUDA out of memory"), MemoryError),
        (MemoryError("no"), MemoryError),
    ],
)
def test_an_error_of_the_run_itself_is_not_tried_again(
    in_this_process, make_job, monkeypatch, error, expected
):
    """One rank raises it, so that Ray ends the others; the group that it begins then ends at once."""
    job = make_job()
    done, group = count_trainings(monkeypatch, error), Group(job)
    with pytest.raises(expected, match=str(error)):
        fit(group, job)
    assert (len(done), group.begun) == (1, 2)


def test_a_crash_is_tried_again(in_this_process, make_job, monkeypatch):
    job = make_job()
    done, group = (
        count_trainings(monkeypatch, RuntimeError("Connection closed by peer")),
        Group(job),
    )
    with pytest.raises(LaunchError, match=r"the worker group failed: .* Connection closed by peer"):
        fit(group, job)
    assert (len(done), group.begun) == (3, 3)


def test_an_error_of_an_earlier_run_is_forgotten(in_this_process, make_job, monkeypatch):
    job = make_job(training={"epochs": 1})
    with monkeypatch.context() as patch:
        count_trainings(patch, MemoryError())
        with pytest.raises(MemoryError):
            fit(Group(job), job)
    assert noted_error(job.run_dir) is not None
    fit(Group(job), job)
    assert noted_error(job.run_dir) is None


def test_a_group_that_fails_while_it_stops_has_stopped(
    in_this_process, make_job, tmp_path, monkeypatch
):
    """Signals that reach workers too are no failure of the run."""
    import dataclasses

    job = dataclasses.replace(make_job(), stop_file=tmp_path / "stop")
    (tmp_path / "stop").touch()
    count_trainings(monkeypatch, RuntimeError("killed"))
    fit(Group(job), job)


def test_memory_that_ran_out_is_found_inside_rays_errors():
    from ray.exceptions import OutOfMemoryError
    from ray.train.v2.api.exceptions import WorkerGroupError

    found = root_error(WorkerGroupError("killed", {1: OutOfMemoryError("low on memory")}))
    assert isinstance(found, MemoryError)


@pytest.mark.parametrize("lost", ["best_weights.safetensors", "checkpoints"])
def test_a_run_is_done_when_its_results_are_there(
    in_this_process, make_job, monkeypatch, lost, tmp_path
):
    """The last checkpoint is written before the weights, and a disk may be full in between."""
    job = make_job(training={"epochs": 1})
    assert not is_done(job)
    fit(Group(job), job)
    assert is_done(job)
    path = job.run_dir / lost
    path.rename(tmp_path / "aside")
    assert not is_done(job)

    group = Group(job)
    monkeypatch.setattr(trainer, "check_cluster", lambda **resources: None)
    monkeypatch.setattr(trainer, "make_torch_trainer", lambda *arguments, **options: group)
    with monkeypatch.context() as patch:
        patch.setattr(Group, "fit", lambda self: None)  # it ends without a word
        with pytest.raises(LaunchError, match=r"the worker group ended after") as error:
            train_with_workers(job, num_workers=1, use_gpu=False)
    if lost == "best_weights.safetensors":
        assert "the same command writes them" in str(error.value)
    train_with_workers(job, num_workers=1, use_gpu=False)
    assert is_done(job)


class TestThread:
    def test_signals_reach_the_one_that_waits(self):
        """In the main thread Ray Train would take SIGINT for itself, and keep it."""
        before, released = signal.getsignal(signal.SIGINT), threading.Event()

        def work():
            os.kill(os.getpid(), signal.SIGINT)
            released.wait(10)

        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            run_until_lost(work)
        assert time.monotonic() - started < 5
        released.set()
        assert signal.getsignal(signal.SIGINT) is before

    def test_its_error_is_raised_here(self):
        def work():
            raise LaunchError("no")

        with pytest.raises(LaunchError, match="no"):
            run_until_lost(work)


@pytest.mark.parametrize(
    ("batch", "most", "expected"),
    [
        (64, 1, 1),
        (64, 2, (1, 2)),
        (64, 3, (1, 2)),
        (64, 4, 4),  # three do not share 64
        (60, 6, (1, 6)),
        (60, 8, (1, 6)),
        (7, 4, 1),
        (64, 0, 1),
    ],
)
def test_elastic_workers_share_the_batch_without_a_gap(batch, most, expected):
    found = elastic_workers(batch, most)
    assert found == expected
    low, high = (found, found) if isinstance(found, int) else found
    assert all(batch % n == 0 for n in range(low, high + 1))
    assert fewest(found) == low


@pytest.mark.parametrize(("num_workers", "uneven"), [(3, 3), ((1, 4), 3), ((3, 4), 3), (64, 64)])
def test_workers_that_cannot_share_the_batch_are_refused(make_job, num_workers, uneven):
    job = make_job()  # of 32 events a step
    with pytest.raises(ConfigError, match=f"is 32, which {uneven} workers cannot share evenly"):
        check_shares(job, num_workers)
    check_shares(job, 4)
    check_shares(job, (1, 2))
