"""A group of workers of Ray Train in this process: its size, its stop and its errors."""

import dataclasses
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gerbil_tune.config.schema import DataConfig, ExperimentConfig
from gerbil_tune.data.events import recording_setup
from gerbil_tune.data.splits.splits import load_splits
from gerbil_tune.errors import StoppedError
from gerbil_tune.training.history import HISTORY
from gerbil_tune.training.job import TrainingJob
from gerbil_tune.training.trainer import train_with_workers

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    # Ray's own, from its processes' clean-up and its use of older interfaces.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
]


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    import ray

    from gerbil_tune.training.ray_runtime import start_ray

    start_ray(num_cpus=2)
    yield
    ray.shutdown()


@pytest.fixture
def job(make_event_file: Callable[..., Path], tmp_path: Path) -> TrainingJob:
    path = make_event_file("calls.h5", num_events=60)
    splits = load_splits(path, DataConfig())
    config = ExperimentConfig.model_validate(
        {
            "model": {"kind": "gcc-net", "lags": {"num_channels": 8, "hidden": 16}},
            "training": {"epochs": 8, "global_batch_size": 8},
        }
    )
    setup = recording_setup(splits.train, config.data)
    return TrainingJob(config, setup, splits, tmp_path / "run", stop_file=tmp_path / "stop")


def epochs_in_history(job: TrainingJob) -> list[int]:
    lines = (job.run_dir / HISTORY).read_text().splitlines()
    return [int(json.loads(line)["epoch"]) for line in lines]


def test_a_group_that_may_change_its_size_stops_and_goes_on_with_fewer(job: TrainingJob) -> None:
    assert job.stop_file is not None
    seen: list[dict[str, Any]] = []

    def ask(metrics: dict[str, float]) -> None:
        seen.append(metrics)
        assert job.stop_file is not None
        job.stop_file.touch()

    with pytest.raises(StoppedError, match=r"stopped after epoch \d/8"):
        train_with_workers(job, num_workers=(1, 2), use_gpu=False, on_epoch=ask)
    assert 1 <= len(seen) < 8
    assert all(metrics["training_done"] == 0.0 for metrics in seen)

    job.stop_file.unlink()
    train_with_workers(job, num_workers=1, use_gpu=False, on_epoch=seen.append)
    assert [metrics["epoch"] for metrics in seen] == list(range(1, 9))
    assert "best_val_nll" in seen[-1]


def test_a_worker_that_is_killed_is_replaced(job: TrainingJob) -> None:
    killed: list[int] = []

    def kill_one(metrics: dict[str, float]) -> None:
        if metrics["epoch"] == 2 and not killed:
            workers = workers_of_the_group()
            assert len(workers) == 2
            killed.append(workers[-1])
            os.kill(workers[-1], signal.SIGKILL)

    train_with_workers(
        dataclasses.replace(job, stop_file=None),
        num_workers=2,
        use_gpu=False,
        on_epoch=kill_one,
    )
    epochs = epochs_in_history(job)
    assert killed
    assert sorted(set(epochs)) == list(range(1, 9))
    assert len(epochs) <= 9  # at most the epoch under way is repeated


def workers_of_the_group() -> list[int]:
    """Process ids of the workers that descend from this process, lowest first."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "status").read_text()
            names[int(folder.name)] = (folder / "cmdline").read_text()
        except OSError:
            continue  # it has ended meanwhile
        parents[int(folder.name)] = int(status.split("\nPPid:\t")[1].split()[0])

    def descends(pid: int) -> bool:
        while pid > 1:
            pid = parents.get(pid, 0)
            if pid == os.getpid():
                return True
        return False

    return sorted(
        pid for pid, name in names.items() if name.startswith("ray::RayTrainW") and descends(pid)
    )
