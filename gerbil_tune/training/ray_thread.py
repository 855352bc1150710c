"""Wait for what Ray runs, and notice when Ray itself is gone.

The calls that run a whole search or a worker group take the signal handlers where they are made in the main
thread, and keep them; so they get one of their own. Where the local instance has died, Ray ends this process
after some time without a word; who looks for itself ends in order before that.
"""

import sys
import threading
import time
from collections.abc import Callable

from gerbil_tune.errors import LaunchError

_VITAL = ("gcs_server", "raylet")
_LOOK_INTERVAL_S = 0.25
_SIGNAL_LAG_S = 0.5
"""A signal to a whole process group may reach Ray before this process."""


def loss_of_ray() -> LaunchError | None:
    """The error of a local instance of which a process has ended; None while all live.

    A cluster that was joined goes on without any one of its machines, and has no process here.
    """
    if "ray" not in sys.modules:
        return None
    from ray._private import worker

    node = worker._global_node
    dead = set() if node is None else {kind for kind, _ in node.dead_processes()}
    lost = next((kind for kind in _VITAL if kind in dead), "")
    if not lost:
        return None
    return LaunchError(
        f"Ray's process {lost} has ended, and with it all that it ran; the same command goes on"
    )


def run_until_lost(work: Callable[[], object], is_lost: Callable[[], object] = loss_of_ray) -> bool:
    """Do something with Ray in another thread, while this one takes signals.

    Args:
        work: What blocks until it is done.
        is_lost: Whether to wait for it no longer.

    Returns:
        Whether Ray was lost; the work is then left behind.

    Raises:
        BaseException: What ``work`` raised; KeyboardInterrupt at once, while the work goes on.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive() and not is_lost():
        thread.join(_LOOK_INTERVAL_S)
    if is_lost():
        time.sleep(_SIGNAL_LAG_S)
        return True
    if raised:
        raise raised[0]
    return False
