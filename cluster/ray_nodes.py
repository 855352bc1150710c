"""Questions about compute nodes that bash cannot answer; called by ray-node.sh.

ray_nodes.py address [INTERFACE] [PEER]: prints the IPv4 address of this machine and its interface.
ray_nodes.py watch ADDRESS HOSTS_FILE DEADLINE_S READY_FILE: waits until all hosts are in the Ray cluster at
ADDRESS, makes READY_FILE, then says which one is lost, as long as it runs.
"""

import fcntl
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

_SIOCGIFADDR = 0x8915
_POLL_S = 2.0


def addresses() -> dict[str, str]:
    """IPv4 address by interface; Linux."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                reply = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
            except OSError:  # it has none
                continue
            found[name] = socket.inet_ntoa(reply[20:24])
    return found


def address_toward(peer: str) -> str:
    """The address from which packets to a peer would go; none is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((peer, 9))
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def own_address(interface: str, peer: str) -> tuple[str, str]:
    """Address and interface under which the other nodes reach this one.

    Args:
        interface: The one to take; empty: any.
        peer: Another node's address; empty: unknown.

    Raises:
        SystemExit: If there is none.
    """
    own = addresses()
    if interface:
        if interface not in own:
            known = ", ".join(f"{name} ({address})" for name, address in own.items())
            sys.exit(
                f"GERBIL_TUNE_INTERFACE is {interface!r}, which has no IPv4 address here; {known} have"
            )
        return own[interface], interface
    outside = {address: name for name, address in own.items() if not address.startswith("127.")}
    named = _named_addresses() if not peer else []
    for address in (*named, address_toward(peer or "8.8.8.8"), *outside):
        if address in outside:
            return address, outside[address]
    sys.exit("this machine has no IPv4 address but the loopback's; set GERBIL_TUNE_INTERFACE")


def _named_addresses() -> list[str]:
    """What the host name stands for; on Debian that may be 127.0.1.1."""
    try:
        return [str(entry[4][0]) for entry in socket.getaddrinfo(socket.gethostname(), None)]
    except OSError:
        return []


def alive_hosts(address: str) -> Callable[[], dict[str, str]]:
    """Return a function that asks a Ray cluster for its nodes: what ails each by name, empty if nothing."""
    from ray._raylet import GcsClient
    from ray.core.generated.gcs_pb2 import GcsNodeInfo

    client = GcsClient(address=address)

    def ask() -> dict[str, str]:
        nodes = sorted(
            client.get_all_node_info(timeout=10.0).values(), key=lambda node: node.start_time_ms
        )
        return {
            node.node_name: ""
            if node.state == GcsNodeInfo.ALIVE
            else node.death_info.reason_message or "it does not answer"
            for node in nodes
        }

    return ask


def watch(address: str, hosts_file: Path, deadline_s: float, ready_file: Path) -> None:
    """Wait for all nodes, then name those that are lost, for ever.

    Raises:
        SystemExit: If not all nodes have come in time.
    """
    expected = hosts_file.read_text().split()
    ask = alive_hosts(address)
    started = time.monotonic()
    while missing := set(expected) - _joined(ask):
        if time.monotonic() - started > deadline_s:
            sys.exit(
                f"{len(expected) - len(missing)} of {len(expected)} nodes have joined in {deadline_s:g} s; "
                f"missing: {', '.join(sorted(missing))}"
            )
        time.sleep(0.5)
    ready_file.touch()
    lost: set[str] = set()
    while True:
        time.sleep(_POLL_S)
        for host, ailment in sorted(_nodes(ask).items()):
            if ailment and host not in lost:
                lost.add(host)
                left = f"{len(expected) - len(lost)} of {len(expected)} are left"
                print(f"node {host} is lost ({ailment}); {left}", flush=True)


def _nodes(ask: Callable[[], dict[str, str]]) -> dict[str, str]:
    try:
        return ask()
    except Exception as error:  # whatever Ray raises while its head starts or ends
        print(f"Ray's head does not answer: {' '.join(str(error).split())[:200]}", flush=True)
        return {}


def _joined(ask: Callable[[], dict[str, str]]) -> set[str]:
    return {host for host, ailment in _nodes(ask).items() if not ailment}


if __name__ == "__main__":
    if sys.argv[1] == "address":
        print(*own_address(*sys.argv[2:4]))
    else:
        watch(sys.argv[2], Path(sys.argv[3]), float(sys.argv[4]), Path(sys.argv[5]))
