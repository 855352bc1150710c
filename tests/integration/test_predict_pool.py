"""A pool of two actors on a real local Ray."""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from gerbil_tune.data.events import open_events
from gerbil_tune.errors import DatasetError, LaunchError, ModelNotFoundError
from gerbil_tune.inference import job
from gerbil_tune.inference.job import predict_files
from gerbil_tune.inference.pool import run_tasks_in_pool
from gerbil_tune.inference.predict import TaskOptions, plan_tasks
from gerbil_tune.tracking.model_registry import ResolvedModel

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NUM_EVENTS = 600


@pytest.fixture(scope="module")
def start_ray() -> Iterator[Callable[[], None]]:
    """Start Ray as the command line would; it is stopped after the module."""
    import ray

    # A socket's path may have 107 characters, and those of pytest's folders are too long.
    folder = tempfile.mkdtemp(prefix="ray-")

    def start(_: object = None) -> None:
        if not ray.is_initialized():
            ray.init(
                num_cpus=2,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                _temp_dir=folder,
            )

    yield start
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def model(make_bundle: Callable[..., Path]) -> ResolvedModel:
    return ResolvedModel(make_bundle(), "models:/m/1", "1")


@pytest.fixture
def recordings(make_event_file: Callable[..., Path]) -> list[Path]:
    return [
        make_event_file(f"{seed}.h5", num_events=NUM_EVENTS // 2, lengths=(20, 900), seed=seed)
        for seed in range(2)
    ]


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with h5py.File(path) as file:
        return file["predictions"][:], file["covariance"][:]


def test_a_pool_writes_what_one_process_writes(model, recordings, start_ray, tmp_path, monkeypatch):
    sizes = {"per_worker_batch_size": 4}
    monkeypatch.setattr(job, "IN_PROCESS_BELOW", 10)
    pooled = predict_files(model, recordings, tmp_path / "pool", start_ray=start_ray, **sizes)
    alone = predict_files(
        model, recordings, tmp_path / "alone", start_ray=start_ray, workers=0, **sizes
    )
    assert pooled.num_events == alone.num_events == NUM_EVENTS
    for one, other in zip(pooled.files, alone.files, strict=True):
        for received, expected in zip(read(one), read(other), strict=True):
            np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-3)


def test_a_killed_worker_costs_nothing(model, recordings, start_ray):
    events = [open_events(path) for path in recordings]
    tasks = plan_tasks(events, per_worker_batch_size=1, crop_length=65536)
    results = run_tasks_in_pool(
        model.path,
        events,
        tasks,
        TaskOptions(1),
        workers=2,
        start_ray=start_ray,
    )
    done = [next(results).task]
    # Two tasks are in flight in it, for none is handed out but by asking for results.
    os.kill(prediction_workers()[0], signal.SIGKILL)
    done += [result.task for result in results]
    assert sorted(done, key=lambda t: (t.set_number, t.start)) == tasks
    deadline = time.monotonic() + 20
    while prediction_workers() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert prediction_workers() == []


@pytest.mark.parametrize(
    ("missing", "error", "says"),
    [
        ("recording", DatasetError, "cannot be mapped any more"),
        ("model", ModelNotFoundError, "is not a model bundle"),
    ],
)
def test_an_error_in_a_worker_comes_back_as_it_was(
    model, recordings, start_ray, missing, error, says
):
    events = [open_events(recordings[0])]
    tasks = plan_tasks(events, per_worker_batch_size=4, crop_length=65536)
    if missing == "recording":
        recordings[0].unlink()
    else:
        shutil.rmtree(model.path)
    results = run_tasks_in_pool(
        model.path, events, tasks, TaskOptions(4), workers=1, start_ray=start_ray
    )
    if missing == "recording":  # which leaves the others
        assert all(says in done.error for done in results)
    else:
        with pytest.raises(error, match=says):
            list(results)


def test_a_pool_larger_than_the_cluster_is_refused(model, recordings, start_ray, tmp_path):
    with pytest.raises(LaunchError, match=r"3 prediction workers need 3 CPUs, but .* has 2"):
        predict_files(model, recordings, tmp_path / "out", start_ray=start_ray, workers=3)
    assert not (tmp_path / "out").exists()


def prediction_workers() -> list[int]:
    """Processes of the pool that this process started."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            title = (entry / "cmdline").read_bytes()
            pid = int(entry.name)
        except OSError:
            continue
        if title.startswith(b"ray::_PredictionWorker") and descends_from_here(pid):
            found.append(pid)
    return found


def descends_from_here(pid: int) -> bool:
    while pid > 1:
        if pid == os.getpid():
            return True
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            return False
    return False
