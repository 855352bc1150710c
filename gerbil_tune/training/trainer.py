"""Train with a Ray Train worker group: DDP over any number of workers, a GPU each where there are GPUs."""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gerbil_tune.errors import (
    ConfigError,
    GerbilTuneError,
    LaunchError,
    NonFiniteLossError,
    StoppedError,
)
from gerbil_tune.training.checkpoints import newest_place
from gerbil_tune.training.history import drop_history_after, read_history
from gerbil_tune.training.job import TrainingJob
from gerbil_tune.training.loop import has_results, train_loop
from gerbil_tune.training.memory import out_of_memory
from gerbil_tune.training.ray_thread import loss_of_ray, run_until_lost
from gerbil_tune.training.session import StopFile
from gerbil_tune.training.stopping import any_rank
from gerbil_tune.training.worker_error import forget_error, is_own_error, note_error, noted_error

if TYPE_CHECKING:
    import torch

RAY_TRAIN_FOLDER = ".ray_train"
"""Beside the run folders: what Ray Train keeps for itself, a folder a run."""

NumWorkers = int | tuple[int, int]
"""DDP ranks: a number, or the fewest and the most between which the group follows the cluster's size."""

_POLL_S = 0.25


class RayTrainSession:
    """A worker of a Ray Train group; construct it inside the worker."""

    def __init__(self, stop_file: Path | None) -> None:
        import ray.train
        import ray.train.torch

        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self.world_size: int = context.get_world_size()
        self.device: torch.device = ray.train.torch.get_device()
        self._stop = StopFile(stop_file)

    def report(self, metrics: dict[str, float]) -> None:
        """Report to the Train controller; a barrier over all ranks."""
        import ray.train

        ray.train.report(dict(metrics))

    def stop_requested(self) -> bool:
        """Whether the stop file is there."""
        return self._stop.is_there()


def train_worker(loop_config: dict[str, Any]) -> None:
    """Run the loop on one worker of the group."""
    import torch

    job: TrainingJob = loop_config["job"]
    session = RayTrainSession(job.stop_file)
    if session.device.type == "cpu":
        torch.set_num_threads(max(1, math.floor(loop_config["cpus_per_worker"])))
    # Ray has begun anew after an error that would come again: on all ranks or on none.
    if any_rank(noted_error(job.run_dir) is not None, session):
        return
    try:
        train_loop(job, session)
    except NonFiniteLossError as error:
        note_error(job.run_dir, error)  # all ranks raise it, so the group just ends
    except Exception as error:
        if is_own_error(error):
            note_error(job.run_dir, error)
        raise  # other ranks may wait for this one, until Ray ends them


def make_torch_trainer(
    job: TrainingJob,
    *,
    num_workers: NumWorkers,
    use_gpu: bool,
    cpus_per_worker: float = 1,
    callbacks: Sequence[Any] = (),
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
    from ray.train.torch import TorchTrainer

    from gerbil_tune.training.group_start import StartGuard
    from gerbil_tune.training.process_group import GroupConfig

    return TorchTrainer(
        train_worker,
        train_loop_config={"job": job, "cpus_per_worker": cpus_per_worker},
        scaling_config=ray.train.ScalingConfig(
            num_workers=num_workers,
            use_gpu=use_gpu,
            resources_per_worker={"CPU": cpus_per_worker, **({"GPU": 1} if use_gpu else {})},
        ),
        torch_config=GroupConfig(backend="nccl" if use_gpu else "gloo"),
        run_config=ray.train.RunConfig(
            name=job.run_dir.name,
            storage_path=str(job.run_dir.parent / RAY_TRAIN_FOLDER),
            failure_config=ray.train.FailureConfig(max_failures=2, controller_failure_limit=3),
            callbacks=[StartGuard(), *callbacks],
        ),
    )


def fit(trainer: Any, job: TrainingJob) -> None:
    """Run a worker group until the job is done or was asked to stop; crashes of workers are tried again.

    Args:
        trainer: From ``make_torch_trainer``.
        job: What it trains.

    Raises:
        GerbilTuneError: What the loop raised, or LaunchError for a failure of the group; not tried again.
        MemoryError: If a worker ran out of memory; not tried again.
    """
    from ray.train.v2.api.exceptions import TrainingFailedError

    forget_error(job.run_dir)
    try:
        trainer.fit()
    except TrainingFailedError as error:
        if noted_error(job.run_dir) is None and not asked_to_stop(job):
            raise root_error(error) from None
    own = noted_error(job.run_dir)
    if own is not None:
        raise own


def train_with_workers(
    job: TrainingJob,
    *,
    num_workers: NumWorkers,
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
        StoppedError: If the job's stop file appeared before the end.
        GerbilTuneError: What the loop raised; LaunchError for any other failure of the group.
        MemoryError: If a worker ran out of memory; see ``train_in_what_fits``.
        KeyboardInterrupt: At once, while the group ends by itself or with this process.
    """
    check_shares(job, num_workers)
    check_cluster(num_workers=fewest(num_workers), use_gpu=use_gpu)
    trainer = make_torch_trainer(job, num_workers=num_workers, use_gpu=use_gpu)
    with followed_history(job.run_dir, on_epoch):
        run_until_lost(lambda: fit(trainer, job))
    if not is_done(job):
        end_if_asked(job)
        raise loss_of_ray() or LaunchError(_describe_end(job))


def is_done(job: TrainingJob) -> bool:
    """Whether the last epoch is over and the run's folder has all that comes of it."""
    place = newest_place(job.run_dir)
    is_over = place is not None and place[0] >= job.config.training.epochs
    return is_over and has_results(job.run_dir)


def _describe_end(job: TrainingJob) -> str:
    place = newest_place(job.run_dir)
    if place is not None and place[0] >= job.config.training.epochs:
        return (
            f"the worker group ended after the last epoch, before its weights were in {job.run_dir}; the "
            "same command writes them, if there is room on the disk"
        )
    return (
        f"the worker group ended {describe_place(place, job)}, as seen from here; put {job.run_dir} on "
        "storage that all workers share"
    )


def asked_to_stop(job: TrainingJob) -> bool:
    """Whether the job's stop file is there."""
    return job.stop_file is not None and job.stop_file.exists()


def end_if_asked(job: TrainingJob) -> None:
    """End a run that has not reached its last epoch.

    Raises:
        StoppedError: If the job's stop file is there.
    """
    if asked_to_stop(job):
        place = describe_place(newest_place(job.run_dir), job)
        raise StoppedError(f"stopped {place}; the same command goes on")


def describe_place(place: tuple[int, int] | None, job: TrainingJob) -> str:
    """Where a run goes on, such as ``after epoch 3/20 and step 12 of the next``."""
    epoch, step = place or (0, 0)
    steps = f" and step {step} of the next" if step else ""
    return f"after epoch {epoch}/{job.config.training.epochs}{steps}"


def fewest(num_workers: NumWorkers) -> int:
    """The least number of ranks."""
    return num_workers if isinstance(num_workers, int) else num_workers[0]


def elastic_workers(global_batch_size: int, most: int) -> NumWorkers:
    """The most workers that share a batch evenly, and as many fewer as do so without a gap.

    Args:
        global_batch_size: Events of a step.
        most: Workers for which there is room.
    """
    high = max(n for n in range(1, max(1, most) + 1) if global_batch_size % n == 0)
    low = high
    while low > 1 and global_batch_size % (low - 1) == 0:
        low -= 1
    return high if low == high else (low, high)


def check_shares(job: TrainingJob, num_workers: NumWorkers) -> None:
    """Refuse numbers of workers that do not divide the batch.

    Raises:
        ConfigError: Naming both.
    """
    batch = job.config.training.global_batch_size
    low, high = (num_workers, num_workers) if isinstance(num_workers, int) else num_workers
    uneven = [n for n in range(low, high + 1) if batch % n]
    if uneven:
        raise ConfigError(
            f"training/global_batch_size is {batch}, which {uneven[0]} workers cannot share evenly; take "
            f"another number of workers, or --set training/global_batch_size={batch + -batch % uneven[0]}"
        )


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


def root_error(error: Exception) -> GerbilTuneError | MemoryError:
    """Find the loop's own error inside Ray's, or describe Ray's in one sentence."""
    failures = getattr(error, "worker_failures", None) or {}
    for failure in failures.values():
        cause: BaseException | None = failure
        while cause is not None:
            if isinstance(cause, GerbilTuneError):
                return cause
            cause = getattr(cause, "cause", None) or cause.__cause__
    text = " ".join(str(error).split())
    if any(out_of_memory(failure) for failure in failures.values()):
        return MemoryError(text[-600:])
    return LaunchError(f"the worker group failed: {text[-600:]}")


@contextmanager
def followed_history(run_dir: Path, on_epoch: Callable[[dict[str, float]], None]) -> Iterator[None]:
    """Call ``on_epoch`` with each epoch that training adds to the run's history meanwhile.

    The history file, not Ray's log stream, which may end before the training does.
    """
    finished = threading.Event()
    place = newest_place(run_dir)
    told = 0 if place is None else place[0]
    drop_history_after(run_dir, told)  # it will be done again, and told then

    def follow() -> None:
        nonlocal told
        while True:
            ending = finished.wait(_POLL_S)
            for metrics in read_history(run_dir):
                # A group that begins anew may do its last epoch again.
                if metrics["epoch"] > told:
                    told = int(metrics["epoch"])
                    on_epoch(metrics)
            if ending:
                return

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        yield
    finally:
        finished.set()
        follower.join()
