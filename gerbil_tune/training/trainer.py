"""Train with a Ray Train worker group: DDP over any number of workers, a GPU each where there are GPUs."""

import json
import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gerbil_tune.errors import GerbilTuneError, LaunchError
from gerbil_tune.training.job import TrainingJob
from gerbil_tune.training.loop import HISTORY, train_loop

if TYPE_CHECKING:
    import torch

RAY_TRAIN_FOLDER = ".ray_train"
"""Beside the run folders: what Ray Train keeps for itself, a folder a run."""

_POLL_S = 0.25


class RayTrainSession:
    """A worker of a Ray Train group; construct it inside the worker."""

    def __init__(self) -> None:
        import ray.train
        import ray.train.torch

        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self.world_size: int = context.get_world_size()
        self.device: torch.device = ray.train.torch.get_device()

    def report(self, metrics: dict[str, float]) -> None:
        """Report to the Train controller; a barrier over all ranks."""
        import ray.train

        ray.train.report(dict(metrics))


def train_worker(loop_config: dict[str, Any]) -> None:
    """Run the loop on one worker of the group."""
    import torch

    session = RayTrainSession()
    if session.device.type == "cpu":
        torch.set_num_threads(max(1, math.floor(loop_config["cpus_per_worker"])))
    train_loop(loop_config["job"], session)


def make_torch_trainer(
    job: TrainingJob,
    *,
    num_workers: int,
    use_gpu: bool,
    cpus_per_worker: float = 1,
    callbacks: list[Any] | None = None,
) -> Any:
    """Build the TorchTrainer of a job; its own files go beside the job's run folder.

    Args:
        job: What to train.
        num_workers: DDP ranks.
        use_gpu: One GPU for each rank.
        cpus_per_worker: CPUs of each rank.
        callbacks: Ray Train callbacks.
    """
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    return TorchTrainer(
        train_worker,
        train_loop_config={"job": job, "cpus_per_worker": cpus_per_worker},
        scaling_config=ray.train.ScalingConfig(
            num_workers=num_workers,
            use_gpu=use_gpu,
            resources_per_worker={"CPU": cpus_per_worker, **({"GPU": 1} if use_gpu else {})},
        ),
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        run_config=ray.train.RunConfig(
            name=job.run_dir.name,
            storage_path=str(job.run_dir.parent / RAY_TRAIN_FOLDER),
            failure_config=ray.train.FailureConfig(max_failures=2, controller_failure_limit=3),
            callbacks=callbacks,
        ),
    )


def train_with_workers(
    job: TrainingJob,
    *,
    num_workers: int,
    use_gpu: bool,
    on_epoch: Callable[[dict[str, float]], None] = lambda metrics: None,
) -> None:
    """Train a job to its end with a worker group; continues where an interrupted run stopped.

    Args:
        job: What to train; its run folder must be on storage that every worker reaches.
        num_workers: DDP ranks.
        use_gpu: One GPU for each rank.
        on_epoch: Called in this process with each epoch's metrics.

    Raises:
        GerbilTuneError: What the loop raised; LaunchError for any other failure of the group.
        KeyboardInterrupt: On Ctrl-C, once the group has stopped.
    """
    from ray.train.v2.api.exceptions import TrainingFailedError

    check_cluster(num_workers=num_workers, use_gpu=use_gpu)
    trainer = make_torch_trainer(job, num_workers=num_workers, use_gpu=use_gpu)
    try:
        with followed_history(job.run_dir, on_epoch), interrupted_as_usual():
            trainer.fit()
    except TrainingFailedError as error:
        raise root_error(error) from None


@contextmanager
def interrupted_as_usual() -> Iterator[None]:
    """Make of Ctrl-C what it is elsewhere.

    Ray Train's own handler stops the workers and then the process, with exit code 1 and without a word; and
    it stays behind, where it would swallow a later Ctrl-C.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, before)


def check_cluster(*, num_workers: int, use_gpu: bool, cpus_per_worker: float = 1) -> None:
    """Refuse a worker group that the cluster can never hold; Ray would wait for it for ever.

    Raises:
        LaunchError: Naming the resource, what is asked and what there is.
    """
    import ray

    have = ray.cluster_resources()
    need = {"CPU": num_workers * cpus_per_worker, "GPU": float(num_workers) if use_gpu else 0.0}
    for resource, amount in need.items():
        if amount > have.get(resource, 0.0):
            raise LaunchError(
                f"{num_workers} workers need {amount:g} {resource}, but the cluster has "
                f"{have.get(resource, 0.0):g}; ask for fewer with --workers"
            )


def root_error(error: Exception) -> GerbilTuneError:
    """Find the loop's own error inside Ray's, or describe Ray's in one sentence."""
    failures = getattr(error, "worker_failures", None) or {}
    for failure in failures.values():
        cause: BaseException | None = failure
        while cause is not None:
            if isinstance(cause, GerbilTuneError):
                return cause
            cause = getattr(cause, "cause", None) or cause.__cause__
    text = " ".join(str(error).split())
    return LaunchError(f"the worker group failed: {text[-600:]}")


@contextmanager
def followed_history(run_dir: Path, on_epoch: Callable[[dict[str, float]], None]) -> Iterator[None]:
    """Call ``on_epoch`` for every line that training appends to the run's history meanwhile.

    The history file, not Ray's log stream, which may end before the training does.
    """
    path = run_dir / HISTORY
    offset = path.stat().st_size if path.exists() else 0
    finished = threading.Event()

    def follow() -> None:
        nonlocal offset
        while True:
            ending = finished.wait(_POLL_S)
            if path.exists():
                with path.open() as history:
                    history.seek(offset)
                    for line in iter(history.readline, ""):
                        if not line.endswith("\n"):
                            break
                        offset += len(line)
                        on_epoch(json.loads(line))
            if ending:
                return

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        yield
    finally:
        finished.set()
        follower.join()
