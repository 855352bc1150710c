import numpy as np
import pytest

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.data.events import open_events
from gerbil_tune.errors import NonFiniteLossError
from gerbil_tune.training import divergence
from gerbil_tune.training.divergence import find_non_finite, non_finite_error

LENGTHS = [50] * 10


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
    error = non_finite_error("the loss became nan", make_events([]), ExperimentConfig())
    assert isinstance(error, NonFiniteLossError)
    assert str(error).startswith(
        "the loss became nan; try a lower optimizer/learning_rate (it was "
    )


def test_files_that_have_gone_are_not_to_blame(make_events):
    events = make_events([2])
    events.files[0].audio()
    events.files[0].path.unlink()
    assert find_non_finite(events) == ""
