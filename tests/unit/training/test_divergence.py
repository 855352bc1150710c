import json

import numpy as np
import pytest
import torch

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.data.checks import audio_scan
from gerbil_tune.data.events import open_events
from gerbil_tune.errors import NonFiniteLossError
from gerbil_tune.training import divergence
from gerbil_tune.training.checkpoints import Progress
from gerbil_tune.training.divergence import (
    check_explosion,
    find_non_finite,
    ignorant_loss,
    non_finite_error,
)
from gerbil_tune.training.session import InProcessSession
from gerbil_tune.training.stopping import StopTraining

LENGTHS = [50] * 10
SESSION = InProcessSession(lambda metrics: None, torch.device("cpu"))


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    """What other tests have found out."""
    monkeypatch.setattr(divergence, "_causes", {})


@pytest.fixture
def make_events(make_event_file):
    def make(bad, value=np.nan):
        audio = np.random.default_rng(0).standard_normal((500, 4))
        audio[[50 * event + 7 for event in bad], 2] = value
        return open_events(make_event_file(audio=audio, lengths=LENGTHS))

    return make


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at_a_time", [1, 3, 100])
def test_the_first_event_is_named_as_its_file_counts(make_events, monkeypatch, value, at_a_time):
    monkeypatch.setattr(divergence, "_EVENTS_AT_A_TIME", at_a_time)
    part = make_events([2, 8], value).subset([1, 3, 4, 8, 2])
    assert find_non_finite(part) == "the audio of event 8 of events.h5 holds NaN or infinite values"
    assert find_non_finite(part.subset([0, 1, 2])) == ""


def test_no_more_audio_is_read_than_is_bearable(make_events, monkeypatch):
    events = make_events([6])
    monkeypatch.setattr(divergence, "_MOST_BYTES", 50 * 4 * 4 * 6)
    assert find_non_finite(events) == ""
    monkeypatch.setattr(divergence, "_MOST_BYTES", 50 * 4 * 4 * 7)
    assert find_non_finite(events)


def test_without_a_fault_in_the_data_training_is_to_blame(make_events):
    error = non_finite_error("the loss became nan", make_events([]), ExperimentConfig(), SESSION)
    assert isinstance(error, NonFiniteLossError)
    assert str(error).startswith(
        "the loss became nan; try a lower optimizer/learning_rate (it was "
    )


def test_files_that_have_gone_are_not_to_blame(make_events):
    events = make_events([2])
    events.files[0].audio()
    events.files[0].path.unlink()
    error = non_finite_error("the loss became nan", events, ExperimentConfig(), SESSION)
    assert str(error).startswith("the loss became nan; try a lower")


@pytest.mark.parametrize("bad", [[], [6]])
def test_the_same_events_are_read_once(make_events, monkeypatch, bad):
    scans, scan = [], divergence.scan_audio

    def counted(*arguments, **options):
        scans.append(arguments)
        return scan(*arguments, **options)

    monkeypatch.setattr(divergence, "scan_audio", counted)
    events = make_events(bad)
    first, again = (
        str(non_finite_error("the loss became nan", part, ExperimentConfig(), SESSION))
        for part in (events, events.subset(np.arange(10)))
    )
    assert first == again
    assert ("the audio of event 6" in first) == bool(bad)
    assert len(scans) == 1
    non_finite_error("the loss became nan", events.subset([1, 2]), ExperimentConfig(), SESSION)
    assert len(scans) == 2


def test_reading_ends_where_a_stop_is_asked_for(make_events, monkeypatch):
    events = make_events([9])
    monkeypatch.setattr(audio_scan, "_TASK_EVENTS", 1)
    asked = []

    def stop():
        asked.append(1)
        return len(asked) == 3

    with pytest.raises(StopTraining):
        find_non_finite(events, stop)
    assert len(asked) == 3
    # What was not read to the end is no verdict.
    session = InProcessSession(lambda metrics: None, torch.device("cpu"))
    monkeypatch.setattr(session, "stop_requested", lambda: True)
    with pytest.raises(StopTraining):
        non_finite_error("the loss became nan", events, ExperimentConfig(), session)
    error = non_finite_error("the loss became nan", events, ExperimentConfig(), SESSION)
    assert "the audio of event 9" in str(error)


def test_one_rank_reads_for_all(make_events, tmp_path, monkeypatch):
    """Two ranks, one after the other, with a file between them in place of their connection."""
    events, verdict = make_events([6]), tmp_path / "verdict.json"

    def broadcast(found):
        if found == [None]:
            found[:] = json.loads(verdict.read_text())
        verdict.write_text(json.dumps(found))

    monkeypatch.setattr(torch.distributed, "broadcast_object_list", broadcast)
    said = []
    for rank in range(2):
        session = InProcessSession(print, torch.device("cpu"), rank=rank, world_size=2)
        said.append(str(non_finite_error("nan", events, ExperimentConfig(), session)))
        monkeypatch.setattr(divergence, "scan_audio", None)
        monkeypatch.setattr(divergence, "_causes", {})
    assert said[0] == said[1]
    assert "the audio of event 6" in said[0]


def test_a_run_that_is_asked_to_stop_meanwhile_stops(make_job, run_job, monkeypatch, tmp_path):
    job = make_job(optimizer={"kind": "adamw", "learning_rate": 1e30})
    find = divergence.find_non_finite

    def asked_meanwhile(events, stop):
        return find(events, lambda: True)

    with monkeypatch.context() as patch:
        patch.setattr(divergence, "find_non_finite", asked_meanwhile)
        assert run_job(job) == []
    with pytest.raises(NonFiniteLossError, match="optimizer/learning_rate"):
        run_job(job)


def test_a_model_without_knowledge_has_about_the_first_loss(make_job, run_job):
    job = make_job(training={"epochs": 1})
    assert ignorant_loss(job) == pytest.approx(run_job(job)[0]["train_loss"], abs=1.0)


@pytest.mark.parametrize(
    ("losses", "num_steps", "raises"),
    [
        ([11.0] * 30, 100, False),
        ([5000.0, 11.0, 5000.0, 11.0], 1000, False),  # spikes
        ([1e6, 50.0, 11.0], 1000, False),  # a wild warm-up
        ([80.0] * 30, 1000, False),
        ([11.0, 11.0, 500.0, 600.0], 100, True),
        ([500.0] * 10, 4, False),  # too few steps yet
        ([500.0] * 13, 4, True),
    ],
)
def test_an_explosion_is_a_loss_that_stays_large(make_job, losses, num_steps, raises):
    job, progress = make_job(), Progress()

    def train():
        for loss in losses:
            check_explosion(loss, num_steps, progress, job)
            progress.epoch += 1

    if raises:
        with pytest.raises(NonFiniteLossError, match=r"the loss exploded: .* lower optimizer/lear"):
            train()
        assert progress.epoch == len(losses) - 1
    else:
        train()


def test_a_run_whose_loss_explodes_is_given_up(make_job, run_job):
    """Weights that the optimizer throws far away and that stay there, without a NaN."""
    job = make_job(
        training={"epochs": 30, "global_batch_size": 32},
        optimizer={"kind": "sgd", "learning_rate": 30.0, "weight_decay": 0.0},
    )
    with pytest.raises(NonFiniteLossError, match="the loss exploded"):
        run_job(job)
