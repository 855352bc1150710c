"""What Ray says of a process that has died, as the book hears it."""

import pytest

from gerbil_tune.search.tune_adapters import crash

KILLED = """\
Failure # 1 (occurred at 2026-11-23_01-49-50)
The actor died unexpectedly before finishing this task.
\tclass_name: ImplicitFunc
\tactor_id: 57f501d4f87b787e8988b40a01000000
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: \
Worker unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the \
process was killed by the OOM killer due to high memory usage, (2) ray stop --force was called, or (3) the \
worker crashed unexpectedly due to SIGSEGV or another unexpected error. If the process was killed by the \
kernel OOM killer (verifiable by checking for OOM in dmesg of the OOMing node), consider enabling resource \
isolation via --enable-resource-isolation to prevent node deaths by resource contention and significant loss \
of progress by uninformed kernel OOM killing.
"""
"""What Ray 2.60 writes of an actor that was killed by ``kill -9``."""


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        (KILLED, "crashed", "its process was killed or died"),
        (f"ray.exceptions.ActorDiedError: {KILLED}", "crashed", "its process was killed or died"),
        (
            "The actor 59ef is unavailable: The actor is temporarily unavailable: RpcError: Socket closed",
            "crashed",
            "its process was killed or died",
        ),
        (
            "ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.",
            "out of memory",
            "ran out of memory",
        ),
        ("ValueError: no such thing", "crashed", "its process failed: ValueError: no such thing"),
        ("", "crashed", "nothing was said"),
    ],
)
def test_a_dead_process_is_out_of_memory_only_if_ray_says_so(
    text: str, kind: str, words: str
) -> None:
    ending = crash(text)
    assert ending.kind == kind
    assert words in ending.reason
