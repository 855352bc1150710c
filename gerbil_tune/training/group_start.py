"""End the start of a worker group for which the machines are no longer there.

Ray Train waits for the places of a group, four times for a minute each, whether or not the cluster still has
them; and without a limit for the first word of its workers, of which one may have lost its place meanwhile.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ray.train.v2._internal.execution.callback import WorkerGroupCallback

from gerbil_tune.errors import LaunchError

if TYPE_CHECKING:
    from ray.train.v2._internal.execution.worker_group.worker_group import WorkerGroupContext

_LOOK_INTERVAL_S = 1.0
_PATIENCE_S = 10.0
"""A machine that begins anew, or another, is known to Ray by then."""


class StartGuard(WorkerGroupCallback):
    """Takes its placement group from a start for which there is no room; runs in Ray Train's controller.

    The start then fails, and where there is still no room, so does the training.
    """

    def __init__(self) -> None:
        self._group: list[dict[str, float]] = []
        self._gave_up = False

    @contextmanager
    def on_worker_group_start(self) -> Iterator[None]:
        """Watch while a group starts."""
        over = threading.Event()
        thread = threading.Thread(target=self._watch, args=(over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def before_worker_group_start(self, worker_group_context: "WorkerGroupContext") -> None:
        """Learn how large the group is.

        Raises:
            LaunchError: If an earlier start found no room, and there is still none.
        """
        context = worker_group_context
        self._group = [dict(context.resources_per_worker)] * context.num_workers
        if self._gave_up and not self._has_room():
            raise LaunchError(
                f"a machine is lost, and the others have no room for {context.num_workers} workers"
            )

    def _has_room(self) -> bool:
        import ray

        return has_room([node["Resources"] for node in ray.nodes() if node["Alive"]], self._group)

    def _watch(self, over: threading.Event) -> None:
        earlier = set(_waiting_groups())
        last_room = time.monotonic()
        while not over.wait(_LOOK_INTERVAL_S):
            if not self._group or self._has_room():
                last_room = time.monotonic()
            elif time.monotonic() - last_room > _PATIENCE_S:
                self._gave_up = True
                _remove({id for id, it in _waiting_groups().items() if it == self._group} - earlier)


def has_room(nodes: list[Mapping[str, float]], group: list[dict[str, float]]) -> bool:
    """Whether machines could hold a group of equal workers, were they idle.

    Args:
        nodes: Resources of each.
        group: Resources of each worker.
    """
    need = {resource: amount for resource, amount in group[0].items() if amount}
    places = (
        min((int(node.get(resource, 0.0) / amount) for resource, amount in need.items()), default=1)
        for node in nodes
    )
    return sum(places) >= len(group)


def _waiting_groups() -> dict[str, list[dict[str, float]]]:
    """Id and workers of this job's placement groups without all of their places."""
    import ray
    from ray.util import placement_group_table

    job = ray.get_runtime_context().get_job_id()
    return {
        group: list(about["bundles"].values())
        for group, about in placement_group_table().items()
        if about["state"] in ("PENDING", "RESCHEDULING") and group.endswith(job)  # as its id does
    }


def _remove(groups: set[str]) -> None:
    from ray._raylet import PlacementGroupID
    from ray.util import remove_placement_group
    from ray.util.placement_group import PlacementGroup

    for group in groups:
        remove_placement_group(PlacementGroup(PlacementGroupID.from_hex(group)))
