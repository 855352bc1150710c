"""Clusters of several nodes on this machine, of which some can be lost and others cannot see a folder."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.faults.bystanders import Bystander

_START_S = 300.0


@dataclass
class SeveralNodes:
    """A cluster; the first of ``raylets`` and ``ray_ids`` is the head's."""

    address: str
    raylets: tuple[int, ...]
    ray_ids: tuple[str, ...]
    cluster: Bystander

    def trials_of(self, number: int) -> list[int]:
        """Processes of trials on a node."""
        return [
            pid
            for pid, title in self.cluster.processes().items()
            if "ImplicitFunc" in title and _parent(pid) == self.raylets[number]
        ]

    def lose(self, number: int) -> None:
        """Kill -9 the raylet of a node."""
        os.kill(self.raylets[number], signal.SIGKILL)


@contextmanager
def several_nodes(folder: Path, *cpus: int) -> Iterator[SeveralNodes]:
    """A cluster of nodes with so many CPUs each; a driver belongs to the first."""
    log = folder / "cluster.log"
    cluster = Bystander(
        log,
        str(Path(__file__).with_name("several_nodes.py")),
        *map(str, cpus),
        environment={"RAY_TMPDIR": str(folder), "RAY_AUTH_MODE": "token"},
    )
    try:
        told = cluster.wait_for(
            lambda: [line for line in log.read_text().splitlines() if line.startswith("{")],
            "nodes",
            _START_S,
        )
        facts = json.loads(told[0])
        yield SeveralNodes(
            facts["address"], tuple(facts["raylets"]), tuple(facts["ray_ids"]), cluster
        )
    finally:
        cluster.kill()


@contextmanager
def joined_node(
    folder: Path, address: str, *, hidden: Path | None = None, python_path: Path | None = None
) -> Iterator[Bystander]:
    """Another node of a cluster, with one CPU.

    Args:
        folder: That of the cluster.
        address: Of the cluster.
        hidden: A folder in whose place this node sees an empty one of its own; only root can do that.
        python_path: Where this node finds Python packages first.
    """
    log = folder / f"joined-{len(list(folder.glob('joined-*')))}.log"
    more = {} if python_path is None else {"PYTHONPATH": str(python_path)}
    started = Bystander(
        log,
        str(Path(__file__).with_name("joining_node.py")),
        "" if hidden is None else str(hidden),
        *("--disable-usage-stats", f"--address={address}", "--num-cpus=1"),
        "--dashboard-agent-listen-port=0",
        environment={"RAY_TMPDIR": str(folder), "RAY_AUTH_MODE": "token", **more},
    )
    try:
        started.wait_for(lambda: "block forever" in log.read_text(), "start of the node", _START_S)
        yield started
    finally:
        started.kill()


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
    except OSError:
        return 0
