"""The runs of ``gerbil-tune train``: one process at a time, on one data set, into one bundle.

Training is that of one worker in this process, without Ray.
"""

import json
import multiprocessing
import shutil

import pytest
import ray
import torch

from gerbil_tune.cli import run_folder
from gerbil_tune.cli import train as train_module
from gerbil_tune.cli.run_folder import held
from gerbil_tune.cli.train import train_and_export
from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.data.events import open_events
from gerbil_tune.errors import ConfigError, LaunchError, StoppedError
from gerbil_tune.models.bundle import load_bundle
from gerbil_tune.training import cluster_nodes, ray_runtime, trainer
from gerbil_tune.training.session import InProcessSession
from gerbil_tune.training.trainer import train_worker

CONFIG = {
    "data": {"crop_length": 400},
    "features": {"gcc": {"window_length": 256}},
    "model": {"kind": "gcc-net", "lags": {"num_channels": 4, "num_blocks": 1, "hidden": 8}},
    "training": {"epochs": 2, "global_batch_size": 8},
}


class Worker:
    """The one worker of a group; ``before`` is called before each training."""

    begun = 0

    def __init__(self, job, before):
        self.job, self.before = job, before

    def fit(self):
        Worker.begun += 1
        self.before(self.job)
        train_worker({"job": self.job, "cpus_per_worker": 1})


@pytest.fixture
def run(make_event_file, tmp_path, monkeypatch):
    """Train, as the command does, in a folder with calls.h5; returns the bundle."""
    monkeypatch.chdir(tmp_path)
    make_event_file("calls.h5", num_events=40, lengths=(250, 350))
    monkeypatch.setattr(Worker, "begun", 0)
    monkeypatch.setattr(ray_runtime, "start_ray", lambda: None)
    monkeypatch.setattr(cluster_nodes, "check_training_machines", lambda *_: None)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.setattr(
        trainer,
        "RayTrainSession",
        lambda stop_file: InProcessSession(print, torch.device("cpu"), stop_file=stop_file),
    )
    threads = torch.get_num_threads()

    def run(before=lambda job: None, *, seeds=1, **training):
        monkeypatch.setattr(trainer, "make_torch_trainer", lambda job, **_: Worker(job, before))
        config = {**CONFIG, "training": {**CONFIG["training"], **training}}
        experiment = ExperimentConfig.model_validate(config)
        files, models = [tmp_path / "calls.h5"], tmp_path / "models"
        return train_and_export(experiment, files, models, workers=1, seeds=seeds)

    yield run
    torch.set_num_threads(threads)


def stop(job):
    job.stop_file.touch()


def bundles(folder):
    return sorted(path.name for path in (folder / "models/gerbil-locator").glob("*"))


def run_dir(folder):
    (found,) = (folder / "models/.runs").glob("gerbil-locator-*/")
    return found


def hold(folder, is_held, may_end):
    with held(folder):
        is_held.set()
        may_end.wait(60)


def test_nothing_is_left_of_a_run_but_its_bundle(run, tmp_path):
    bundle = run()
    assert bundle == tmp_path / "models/gerbil-locator/00001"
    assert load_bundle(bundle).provenance["workers"] == 1
    assert not (tmp_path / "models/.runs").exists()
    assert run().name == "00002"


def test_several_seeds_are_exported_as_one_model(run, tmp_path):
    stopped = []

    def stop_the_second(job):
        if job.config.training.seed == 1 and not stopped:
            stopped.append(job)
            stop(job)

    with pytest.raises(StoppedError):
        run(stop_the_second, seeds=2)
    assert bundles(tmp_path) == ["00001"]
    ensemble = load_bundle(run(seeds=2))
    assert bundles(tmp_path) == ["00001", "00002", "00003"]
    assert ensemble.path.name == "00003"
    assert [member.config.training.seed for member in ensemble.members] == [0, 1]
    assert ensemble.members[0].fingerprint != ensemble.members[1].fingerprint
    assert not (tmp_path / "models/.runs").exists()


def test_the_same_run_is_not_trained_twice_at_a_time(run, tmp_path):
    with pytest.raises(StoppedError):
        run(stop)
    folder = run_dir(tmp_path)
    before = sorted(folder.rglob("*"))
    context = multiprocessing.get_context("spawn")
    is_held, may_end = context.Event(), context.Event()
    other = context.Process(target=hold, args=(folder, is_held, may_end))
    other.start()
    try:
        assert is_held.wait(60)
        with pytest.raises(LaunchError) as error:
            run()
        assert str(folder) in str(error.value)
        assert "another process is training the same configuration" in str(error.value)
        assert sorted(folder.rglob("*")) == before
        assert run(epochs=1).name == "00001"  # another run
    finally:
        may_end.set()
        other.join()
    assert run().name == "00002"


def test_a_lock_goes_with_the_folder_that_it_guards(tmp_path):
    with held(tmp_path / "runs/a"):
        assert (tmp_path / "runs/a.lock").exists()
    assert not (tmp_path / "runs").exists()
    with held(tmp_path / "runs/a"):
        (tmp_path / "runs/a").mkdir()
    assert (tmp_path / "runs/a.lock").exists()


class TestData:
    def test_a_run_does_not_go_on_with_other_data(self, run, make_event_file, tmp_path):
        calls = tmp_path / "calls.h5"
        shutil.copy(calls, tmp_path / "kept.h5")
        with pytest.raises(StoppedError):
            run(stop)
        make_event_file("calls.h5", num_events=40, lengths=(250, 350), seed=1)
        with pytest.raises(ConfigError) as error:
            run()
        assert str(error.value).startswith(
            f"{calls} has changed since the run in {run_dir(tmp_path)} began"
        )
        assert "remove that folder to begin anew" in str(error.value)
        shutil.copy(tmp_path / "kept.h5", calls)
        assert run().name == "00001"

    def test_after_its_folder_is_removed_it_begins_anew(self, run, make_event_file, tmp_path):
        with pytest.raises(StoppedError):
            run(stop)
        make_event_file("calls.h5", num_events=40, lengths=(250, 350), seed=1)
        shutil.rmtree(run_dir(tmp_path))
        assert run().name == "00001"

    def test_the_bundle_names_the_data_of_the_beginning(self, run, tmp_path):
        with pytest.raises(StoppedError):
            run(stop)
        begun = json.loads((run_dir(tmp_path) / "data.json").read_text())
        bundle = run()
        assert load_bundle(bundle).provenance["data_fingerprint"] == begun["train"]
        assert list(begun["files"]) == [str(tmp_path / "calls.h5")]
        file = open_events(tmp_path / "calls.h5").files[0]
        assert list(begun["files"].values()) == [file.fingerprint()]

    def test_what_differs_is_named(self):
        begun = {"a.h5": "1", "b.h5": "2"}
        describe = run_folder._difference
        assert describe(begun, {"a.h5": "1", "b.h5": "3"}) == "b.h5 has changed"
        assert describe(begun, {"a.h5": "1"}) == "b.h5 is no longer part of the data"
        assert describe(begun, {**begun, "c.h5": "1"}) == "c.h5 has come to the data"
        assert describe(begun, begun) == "the split of the data has changed"


class TestKilledAtTheEnd:
    """Whatever the moment, the same command returns the bundle that there is, and trains nothing."""

    @pytest.mark.parametrize("moment", ["_keep_split", "remove_run", "within remove_run"])
    def test_the_same_command_returns_the_bundle(self, run, tmp_path, monkeypatch, moment):
        def killed(*arguments):
            if moment == "within remove_run":
                shutil.rmtree(arguments[0] / "checkpoints")
                (arguments[0] / "val_set.npy").unlink()
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            place = train_module if moment == "_keep_split" else run_folder
            patch.setattr(place, moment.removeprefix("within "), killed)
            with pytest.raises(KeyboardInterrupt):
                run()
        assert run() == tmp_path / "models/gerbil-locator/00001"
        assert (bundles(tmp_path), Worker.begun) == (["00001"], 1)
        parts = {path.name for path in (tmp_path / "models/gerbil-locator/00001/split").iterdir()}
        assert parts == {"train_set.npy", "val_set.npy", "test_set.npy"}
        assert not (tmp_path / "models/.runs").exists()

    def test_a_bundle_that_was_deleted_is_exported_again(self, run, tmp_path, monkeypatch):
        def killed(*arguments):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(train_module, "_keep_split", killed)
            with pytest.raises(KeyboardInterrupt):
                run()
        shutil.rmtree(tmp_path / "models/gerbil-locator/00001")
        assert load_bundle(run()).name == "gerbil-locator"
        assert bundles(tmp_path) == ["00001"]


class TestMemory:
    def test_it_goes_on_in_smaller_parts(self, run, capsys):
        def run_out(job):
            if job.config.training.accumulate_steps == 1:
                raise MemoryError("no room")

        assert run(run_out).name == "00001"
        assert "(no room); going on with each step in 2 parts\n" in capsys.readouterr().err

    def test_if_that_does_not_fit_it_says_what_may(self, run):
        def run_out(job):
            if job.config.training.accumulate_steps < 4:
                raise MemoryError("no room")

        with pytest.raises(LaunchError, match="--set training/accumulate_steps=4 goes on"):
            run(run_out)
        assert run(run_out, accumulate_steps=4).name == "00001"
