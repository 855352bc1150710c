import copy
import functools
import os
import warnings

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from gerbil_tune.config.schema import TrainingConfig
from gerbil_tune.errors import NonFiniteLossError
from gerbil_tune.models.features.features import Features
from gerbil_tune.training import loop
from gerbil_tune.training.acceleration import accelerated, compile_network
from gerbil_tune.training.notes import read_notes

WORKSPACES = "CUBLAS_WORKSPACE_CONFIG"


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 5)
        self.readout = nn.Linear(4, 2)

    def forward(self, features):
        return self.readout(torch.tanh(self.conv(features.waveform_BFT)).mean(2))


def batch(num_events=2, num_samples=20):
    return Features(torch.full((num_events,), num_samples), torch.randn(num_events, 3, num_samples))


def broken(graph, examples):
    """A compiler that is not there."""
    raise RuntimeError("no compiler on this machine")


@pytest.fixture
def counting():
    """A compiler that runs what it is given, and counts it."""

    class Counting:
        number = 0

        def __call__(self, graph, examples):
            self.number += 1
            return graph.forward

    return Counting()


@pytest.fixture(autouse=True)
def compiler():
    """Fresh before each test, and afterwards as it was."""
    with accelerated(TrainingConfig(compile=True)):
        yield


@pytest.fixture
def compiled(monkeypatch):
    """Let training use a compiler that a test can wait for."""

    def use(backend):
        monkeypatch.setattr(
            loop, "compile_network", functools.partial(compile_network, backend=backend)
        )

    return use


def weights(job):
    return load_file(job.run_dir / "final_weights.safetensors")


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def flags():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        os.environ.get(WORKSPACES),
    )


def test_a_compiled_network_gives_what_it_gave(counting):
    network, told = Net(), []
    plain = copy.deepcopy(network)
    compile_network(network, told.append, backend=counting)
    features = batch()
    torch.testing.assert_close(network(features), plain(features))
    network(features).square().sum().backward()
    plain(features).square().sum().backward()
    for compiled, expected in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(compiled.grad, expected.grad)
    assert network.state_dict().keys() == plain.state_dict().keys()
    assert counting.number > 0
    assert told == []


def test_events_of_other_lengths_are_not_compiled_for_again(counting):
    network = Net()
    compile_network(network, pytest.fail, backend=counting)
    for num_samples in range(20, 40):
        network(batch(2 + num_samples % 5, num_samples))
    assert counting.number <= 2


def test_where_compiling_fails_the_network_runs_as_it_is_and_says_so_once():
    network, told = Net(), []
    plain = copy.deepcopy(network)
    compile_network(network, told.append, backend=broken)
    for num_samples in (20, 30, 40):
        features = batch(2, num_samples)
        assert torch.equal(network(features), plain(features))
    assert len(told) == 1
    assert told[0].startswith("the network could not be compiled, and runs as it is: ")
    assert "no compiler on this machine" in told[0]
    assert "\n" not in told[0]


def test_an_error_of_the_network_is_its_own(counting):
    network = Net()
    compile_network(network, pytest.fail, backend=counting)
    with pytest.raises(RuntimeError, match="channels"):
        network(Features(torch.tensor([9]), torch.randn(1, 7, 9)))


def test_out_of_memory_is_no_failure_of_the_compiler():
    def full(graph, examples):
        raise torch.OutOfMemoryError("CUDA out of memory")

    network = Net()
    compile_network(network, pytest.fail, backend=full)
    with pytest.raises(Exception, match="out of memory"):
        network(batch())


def test_training_without_a_working_compiler_is_training(make_job, run_job, compiled):
    compiled(broken)
    training = {"epochs": 2, "ema_decay": 0.9}
    plain, job = (
        make_job("plain", training=training),
        make_job(training={**training, "compile": True}),
    )
    assert run_job(job) == run_job(plain)
    assert same(weights(job), weights(plain))
    assert [note.partition(":")[0] for note in read_notes(job.run_dir)] == [
        "the network could not be compiled, and runs as it is"
    ]
    assert read_notes(plain.run_dir) == []


def test_training_compiled_is_training(make_job, run_job, compiled, counting):
    compiled(counting)
    plain, job = make_job("plain"), make_job(training={"compile": True})
    expected, reports = run_job(plain), run_job(job)
    assert counting.number > 0
    assert weights(job).keys() == weights(plain).keys()
    assert reports[-1]["val_nll"] == pytest.approx(expected[-1]["val_nll"], rel=1e-3)
    assert read_notes(job.run_dir) == []


def test_what_repeats_repeats_in_one_process(make_job, run_job):
    training = {"deterministic": True, "epochs": 2}
    jobs = [make_job(name, training=training) for name in ("first", "second")]
    first, second = map(run_job, jobs)
    assert first == second
    assert same(*map(weights, jobs))


def test_it_holds_during_training_and_no_longer(make_job, run_job):
    before, during = flags(), []
    training = {"epochs": 1}
    job = make_job(training={**training, "deterministic": True})
    run_job(job, lambda _: during.append(flags()))
    assert flags() == before
    run_job(make_job("other", training=training), lambda _: during.append(flags()))
    assert during == [(True, False, False, ":4096:8"), before]


def test_it_does_not_outlast_an_error(make_job, run_job):
    before = flags()
    job = make_job(training={"deterministic": True}, optimizer={"learning_rate": 1e30})
    with pytest.raises(NonFiniteLossError):
        run_job(job)
    assert flags() == before


def test_what_was_set_before_is_set_again(monkeypatch):
    monkeypatch.setenv(WORKSPACES, ":16:8")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with accelerated(TrainingConfig(deterministic=True)):
            assert flags() == (True, False, False, ":16:8")
        assert flags() == (True, True, True, ":16:8")
    finally:
        torch.use_deterministic_algorithms(False)


def test_warnings_of_the_compiler_alone_are_left_out(monkeypatch):
    with accelerated(TrainingConfig(compile=True)):
        warnings.warn_explicit("slow", UserWarning, "f.py", 1, module="torch._inductor.lowering")
        with pytest.raises(UserWarning, match="wrong"):
            warnings.warn_explicit("wrong", UserWarning, "f.py", 1, module="gerbil_tune.models")
