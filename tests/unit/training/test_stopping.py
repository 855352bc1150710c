"""A run that is asked to stop saves what it has done, and then goes on as if nothing had happened."""

import itertools
import os
import signal

import pytest
import torch

import gerbil_tune.training.loop as loop
from gerbil_tune.training import session as session_module
from gerbil_tune.training import validation, within_epoch
from gerbil_tune.training.checkpoints import newest_place
from gerbil_tune.training.feature_bank import FeatureBank
from gerbil_tune.training.loop import train_loop
from gerbil_tune.training.session import InProcessSession, StopFile
from gerbil_tune.training.stopping import stop_on_signals
from gerbil_tune.training.within_epoch import CheckpointClock, Due

CPU = torch.device("cpu")
TRAINING = {"epochs": 3, "global_batch_size": 40}  # four steps an epoch
CONSTANT = {"augmentation": {"noise_prob": 0.0}, "data": {"crop_length": 1000}}


class AskedSession(InProcessSession):
    """Is asked to stop when ``asked`` says so."""

    asked = staticmethod(lambda: False)

    def stop_requested(self):
        return self.asked()


def run_asked(job, asked):
    reports = []
    place = AskedSession(reports.append, CPU)
    place.asked = asked
    return train_loop(job, place), reports


def without_timing(reports):
    timing = {"epoch_s", "train_events_per_s", "predict_ms_per_event"}
    return [{k: v for k, v in report.items() if k not in timing} for report in reports]


@pytest.mark.parametrize("sections", [{}, CONSTANT], ids=["streamed", "memory"])
@pytest.mark.parametrize("look", [1, 3, 6, 9, 16, 17, 30])
def test_whenever_it_is_asked_nothing_is_lost(make_job, run_job, look, sections):
    """It is asked at the n-th time that it looks: while features are computed, at a step, in validation."""
    expected = run_job(make_job("undisturbed", training=TRAINING, **sections))
    job = make_job(training=TRAINING, **sections)
    looks = itertools.count(1)
    progress, begun = run_asked(job, lambda: next(looks) >= look)
    begun = without_timing(begun)
    if progress.epoch < 3:
        assert all(report["training_done"] == 0.0 for report in begun)
        assert not (job.run_dir / "final_weights.safetensors").exists()
        place = newest_place(job.run_dir)
        assert (place or (0, 0)) == (progress.epoch, progress.partial.step)
    ended = run_job(job)
    assert begun + ended[bool(begun) :] == expected


def test_at_a_step_it_stops_after_that_step(make_job, monkeypatch):
    job, steps = make_job(training=TRAINING), itertools.count(1)
    step, done = loop.optimizer_step, []

    def counted_step(*arguments):
        done.append(next(steps))
        return step(*arguments)

    monkeypatch.setattr(loop, "optimizer_step", counted_step)
    progress, reports = run_asked(job, lambda: len(done) >= 6)
    assert done == [1, 2, 3, 4, 5, 6]
    assert (progress.epoch, progress.partial.step) == (1, 2) == newest_place(job.run_dir)
    assert [report["epoch"] for report in reports] == [1]


def test_while_features_are_computed_it_stops_between_blocks(make_job, monkeypatch):
    computed, compute = [], FeatureBank._compute

    def counted(bank, first):
        computed.append(first)
        return compute(bank, first)

    monkeypatch.setattr(FeatureBank, "_compute", counted)
    progress, reports = run_asked(make_job(**CONSTANT), lambda: len(computed) >= 2)
    assert computed == [0, 64]
    assert (progress.epoch, progress.partial.step, reports) == (0, 0, [])


def test_in_validation_it_stops_between_batches(make_job, run_job, monkeypatch):
    model_reads = []
    predict = validation.predict_validation

    def noted(*arguments):
        model_reads.append(1)
        return predict(*arguments)

    monkeypatch.setattr(validation, "predict_validation", noted)
    job = make_job(training={"epochs": 3, "global_batch_size": 10})
    progress, reports = run_asked(job, lambda: bool(model_reads))
    assert (progress.epoch, progress.partial.step, reports) == (0, 16, [])
    assert newest_place(job.run_dir) == (0, 16)


def test_a_finished_run_is_not_stopped(make_job, run_job):
    job = make_job(training=TRAINING)
    run_job(job)
    progress, reports = run_asked(job, lambda: True)
    assert progress.epoch == 3
    assert reports[-1]["training_done"] == 1.0


def test_the_file_is_looked_for_twice_a_second(tmp_path, monkeypatch):
    now_s = 100.0
    monkeypatch.setattr(session_module.time, "monotonic", lambda: now_s)
    stop = StopFile(tmp_path / "stop")
    assert not stop.is_there()
    (tmp_path / "stop").touch()
    now_s = 100.4
    assert not stop.is_there()
    now_s = 100.5
    assert stop.is_there()
    assert not StopFile(None).is_there()


def test_a_session_finds_the_file(make_job, tmp_path):
    (tmp_path / "stop").touch()
    job = make_job(training=TRAINING)
    progress = train_loop(job, InProcessSession(print, CPU, stop_file=tmp_path / "stop"))
    assert progress.epoch == 0


@pytest.mark.parametrize("step_s", [0.01, 0.3, 4.0])
def test_several_workers_look_once_a_second_for_a_request(monkeypatch, step_s):
    """Or after each step, where steps are longer."""
    now_s, found = 100.0, []
    monkeypatch.setattr(within_epoch.time, "perf_counter", lambda: now_s)
    monkeypatch.setattr(torch.distributed, "broadcast", lambda tensor, src: found.append(now_s))
    clock = CheckpointClock(300.0, InProcessSession(print, CPU, world_size=2))
    while now_s < 112:
        now_s += step_s
        assert clock.due() is Due.NOTHING
    assert max(b - a for a, b in itertools.pairwise(found)) <= max(1.0, step_s) + 1e-6
    assert len(found) < 20


def test_a_checkpoint_and_a_stop_are_due_by_turns(monkeypatch):
    session = AskedSession(print, CPU)
    clock = CheckpointClock(1e-9, session)
    assert clock.due() is Due.SAVE
    session.asked = lambda: True
    assert clock.due() is Due.STOP


class TestSignals:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
    def test_the_first_asks_and_the_second_interrupts(self, tmp_path, number):
        stop_file, said = tmp_path / "run" / "stop", []
        before = signal.getsignal(number)
        with stop_on_signals(stop_file, said.append):
            os.kill(os.getpid(), number)
            assert stop_file.exists()
            assert len(said) == 1
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)
        assert signal.getsignal(number) is before

    def test_an_old_request_is_none(self, tmp_path):
        (tmp_path / "stop").touch()
        with stop_on_signals(tmp_path / "stop", print):
            assert not (tmp_path / "stop").exists()

    def test_what_others_took_is_taken_back(self, tmp_path):
        with stop_on_signals(tmp_path / "stop", lambda said: None) as listen_again:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as ray.init does
            listen_again()
            os.kill(os.getpid(), signal.SIGTERM)
            assert (tmp_path / "stop").exists()
