"""What is read of a history that a power cut has left with bytes that are no line."""

import json
import threading

import pytest

from gerbil_tune.training.checkpoints import copy_newest
from gerbil_tune.training.history import (
    HISTORY,
    append_epoch,
    copy_history,
    drop_history_after,
    read_history,
)
from gerbil_tune.training.trainer import followed_history

GARBAGE = [b"\0" * 40 + b"\n", b'{"epoch": 2, "val\n', b"\xff\xfe\n", b"[1]\n", b'{"val_nll": 2}\n']
QUICK = {"epochs": 3, "global_batch_size": 80}


def write(run_dir, *epochs, garbage=b""):
    """A history in which the garbage comes after the first epoch."""
    run_dir.mkdir(exist_ok=True)
    lines = [json.dumps({"epoch": epoch}).encode() + b"\n" for epoch in epochs]
    (run_dir / HISTORY).write_bytes(lines[0] + garbage + b"".join(lines[1:]))


def epochs_of(run_dir):
    return [metrics["epoch"] for metrics in read_history(run_dir)]


def test_a_run_without_a_history_has_an_empty_one(tmp_path):
    assert read_history(tmp_path) == []
    drop_history_after(tmp_path, 3)
    assert not (tmp_path / HISTORY).exists()


@pytest.mark.parametrize("garbage", GARBAGE)
def test_what_is_no_line_is_passed_over(tmp_path, garbage):
    write(tmp_path, 1, 2, 3, garbage=garbage)
    append_epoch(tmp_path, {"epoch": 4})
    assert epochs_of(tmp_path) == [1, 2, 3, 4]
    copy_history(tmp_path, tmp_path, 3)
    assert (tmp_path / HISTORY).read_text() == '{"epoch": 1}\n{"epoch": 2}\n{"epoch": 3}\n'


def test_a_line_that_is_not_ended_does_not_count(tmp_path):
    (tmp_path / HISTORY).write_text('{"epoch": 1}\n{"epoch": 2}')
    assert epochs_of(tmp_path) == [1]


def test_an_epoch_is_on_the_disk_when_it_was_added(tmp_path, flushed):
    append_epoch(tmp_path, {"epoch": 1})
    assert flushed == [tmp_path / HISTORY]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_a_good_checkpoint_can_be_used_whatever_its_history(make_job, run_job, garbage):
    job, copy, intact = make_job(training=QUICK), make_job("copy"), make_job("b", training=QUICK)

    def stop(metrics):
        if metrics["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(job, stop)
    path = job.run_dir / HISTORY
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + garbage + second)
    assert copy_newest(job.run_dir, copy.run_dir) == 2
    assert epochs_of(copy.run_dir) == [1, 2]
    assert run_job(job) == run_job(intact)[1:]  # the last epoch is told again
    assert epochs_of(job.run_dir) == [1, 2, 3]
    assert len(path.read_bytes().splitlines()) == 3


class TestFollowed:
    def test_every_new_epoch_is_told_once_and_in_order(self, tmp_path):
        told = []
        with followed_history(tmp_path, lambda metrics: told.append(metrics["epoch"])):
            for epoch in (1, 2, 3):
                append_epoch(tmp_path, {"epoch": epoch})
            with (tmp_path / HISTORY).open("ab") as file:
                file.write(GARBAGE[0])
            drop_history_after(tmp_path, 2)  # a group that begins anew does the third again
            append_epoch(tmp_path, {"epoch": 3})
        assert told == [1, 2, 3]

    def test_what_will_be_done_again_is_not_told_before(self, tmp_path):
        """A kill between history and checkpoint leaves an epoch too many."""
        write(tmp_path, 1, 2)
        told, seen = [], threading.Event()

        def tell(metrics):
            told.append(metrics)
            seen.set()

        with followed_history(tmp_path, tell):
            assert not seen.wait(0.6)
            append_epoch(tmp_path, {"epoch": 1, "again": 1})
            assert seen.wait(5)
        assert told == [{"epoch": 1, "again": 1}]
