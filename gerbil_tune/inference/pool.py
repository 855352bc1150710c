"""Batch prediction on a Ray cluster: a pool of actors that each hold the model and the mapped files.

The actors take tasks, the process that drives them writes the results. Two tasks are in flight for each
actor, so that none waits for the driver. An actor that dies is started again and its tasks are repeated.
"""

import collections
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayActorError, RayTaskError

from gerbil_tune.data.events import EventSet
from gerbil_tune.errors import GerbilTuneError, LaunchError
from gerbil_tune.inference.predict import Task, TaskOptions, TaskResult, attempt_task
from gerbil_tune.models.bundle import TrainedModel, load_bundle

_logger = logging.getLogger(__name__)

_IN_FLIGHT = 2
_MAX_RESTARTS = 3
_SAY_WAITING_AFTER_S = 60.0


class _PredictionWorker:
    """One process of the pool, which computes on one thread, for it holds one CPU.

    Model and events are loaded with the first task: an error of a task comes back as what it is, one of the
    constructor would only be the death of an actor.
    """

    def __init__(self, bundle_path: Path, options: TaskOptions) -> None:
        self._bundle_path = bundle_path
        self._options = options
        self._bundle: TrainedModel | None = None
        self._event_sets: Sequence[EventSet] = ()

    def run(self, task: Task, shared_sets: Sequence[Any]) -> TaskResult:
        """Predict the events of a task.

        Args:
            task: The task.
            shared_sets: Reference to the event sets, in a list: Ray would replace a plain reference by a
                copy of the sets with each task.
        """
        if self._bundle is None:
            # Ray says so too, but not where the variable OMP_NUM_THREADS of the user says otherwise.
            torch.set_num_threads(1)
            device = "cuda" if torch.cuda.is_available() else "cpu"
            self._event_sets = ray.get(shared_sets[0])
            self._bundle = load_bundle(self._bundle_path, device=device)
        return attempt_task(self._bundle, self._event_sets, task, self._options)


def run_tasks_in_pool(
    bundle_path: Path,
    event_sets: Sequence[EventSet],
    tasks: Sequence[Task],
    options: TaskOptions,
    *,
    workers: int | None,
    start_ray: Callable[[], None],
) -> Iterator[TaskResult]:
    """Do tasks in a pool of actors.

    Args:
        bundle_path: The model's bundle, at the same place on all machines of the cluster.
        event_sets: The sets that the tasks are of, their files at the same place on all machines.
        tasks: From ``plan_tasks``.
        options: How they are done.
        workers: Actors; None: one for each GPU of the cluster, or for each CPU where there is none.
        start_ray: Starts or joins Ray.

    Yields:
        Results in the order in which they become ready.

    Raises:
        LaunchError: If the cluster is too small, or an actor dies time and again.
        GerbilTuneError: As an actor met it.
    """
    start_ray()
    num_workers, resources = plan_workers(ray.cluster_resources(), workers, len(tasks))
    worker_class = ray.remote(
        max_restarts=_MAX_RESTARTS, max_task_retries=_MAX_RESTARTS, **resources
    )(_PredictionWorker)
    shared_sets = [ray.put(list(event_sets))]
    actors = [worker_class.remote(bundle_path, options) for _ in range(num_workers)]
    try:
        yield from _share_out(actors, tasks, shared_sets)
    finally:
        for actor in actors:
            ray.kill(actor)


def plan_workers(
    cluster: dict[str, float], workers: int | None, num_tasks: int
) -> tuple[int, dict[str, float]]:
    """Choose the number of actors and what each of them holds.

    Args:
        cluster: All resources of the cluster, as Ray counts them.
        workers: The number asked for, or None.
        num_tasks: More actors than tasks are of no use.

    Returns:
        The number, and ``num_cpus`` and ``num_gpus`` of an actor. Actors share a GPU equally where there
        are fewer GPUs than actors.

    Raises:
        LaunchError: If more are asked for than the cluster has CPUs; they would wait for ever.
    """
    num_cpus, num_gpus = int(cluster.get("CPU", 0)), int(cluster.get("GPU", 0))
    wanted = workers or num_gpus or num_cpus
    if wanted > num_cpus or wanted < 1:
        raise LaunchError(
            f"{wanted} prediction workers need {wanted} CPUs, but the Ray cluster has {num_cpus}; "
            f"ask for at most {num_cpus} with --workers, or for none with --workers 0"
        )
    chosen = max(1, min(wanted, num_tasks))
    # A share above one half would leave the rest of a GPU idle, and actors waiting for it.
    share = 1.0 / math.ceil(chosen / num_gpus) if num_gpus else 0.0
    return chosen, {"num_cpus": 1, "num_gpus": share}


def _share_out(
    actors: Sequence[Any], tasks: Sequence[Task], shared_sets: Sequence[Any]
) -> Iterator[TaskResult]:
    waiting = collections.deque(tasks)
    in_flight: dict[Any, Any] = {}
    for actor in list(actors) * _IN_FLIGHT:
        if waiting:
            in_flight[actor.run.remote(waiting.popleft(), shared_sets)] = actor
    while in_flight:
        ready, _ = ray.wait(list(in_flight), num_returns=1, timeout=_SAY_WAITING_AFTER_S)
        if not ready:
            _logger.warning(
                "no prediction came back for %.0f s; the cluster has %s free",
                _SAY_WAITING_AFTER_S,
                {name: ray.available_resources().get(name, 0.0) for name in ("CPU", "GPU")},
            )
            continue
        actor = in_flight.pop(ready[0])
        if waiting:
            in_flight[actor.run.remote(waiting.popleft(), shared_sets)] = actor
        yield _result(ready[0])


def _result(reference: Any) -> TaskResult:
    try:
        result: TaskResult = ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, GerbilTuneError):
            raise error.cause from None
        raise
    except RayActorError as error:
        reason = str(error).strip().splitlines()[0]
        raise LaunchError(
            f"a prediction worker died more than {_MAX_RESTARTS} times ({reason}); if memory ran out, "
            "use fewer --workers"
        ) from error
    return result
