"""Whether the Ray instance that this process has started still lives.

Where it does not, Ray ends this process after some time without a word. A search that looks for itself ends
in order before that.
"""

_VITAL = ("gcs_server", "raylet")


def lost_process() -> str:
    """Name the process of the local instance that has ended; empty while all live.

    A cluster that was joined goes on without any one of its machines, and has no process here.
    """
    from ray._private import worker

    node = worker._global_node
    dead = set() if node is None else {kind for kind, _ in node.dead_processes()}
    return next((kind for kind in _VITAL if kind in dead), "")
