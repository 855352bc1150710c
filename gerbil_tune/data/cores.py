"""How many cores this process may use."""

import os


def num_cores() -> int:
    """Cores of this process: fewer than the machine's inside a batch job."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
