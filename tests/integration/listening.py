"""What processes listen on, as the kernel tells it."""

import contextlib
import ipaddress
import os
import socket
from dataclasses import dataclass
from pathlib import Path

_LISTENS = "0A"
_UNCONNECTED = "07"


@dataclass(frozen=True)
class Listener:
    """A socket on which a process waits for others.

    Attributes:
        title: Command line of the process, or what it calls itself.
        protocol: tcp, tcp6, udp or udp6.
        address: That it is bound to.
        port: Likewise.
    """

    title: str
    protocol: str
    address: str
    port: int

    @property
    def is_private(self) -> bool:
        """Whether only this machine can reach it."""
        address = ipaddress.ip_address(self.address)
        mapped = getattr(address, "ipv4_mapped", None)
        return (mapped or address).is_loopback


def processes_of(session: int) -> dict[int, str]:
    """Command line by id of the processes of a session that live."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(folder.name)) == session:
                title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found[int(folder.name)] = title.strip()
        except OSError:  # it has just ended
            continue
    return found


def listeners_of(processes: dict[int, str]) -> set[Listener]:
    """All sockets on which some processes wait for others."""
    sockets = _sockets()
    return {
        Listener(title, *sockets[number])
        for pid, title in processes.items()
        for number in _open_sockets(pid)
        if number in sockets
    }


def _open_sockets(pid: int) -> list[str]:
    """Numbers of the sockets that a process has open."""
    links = []
    with contextlib.suppress(OSError):  # the process has just ended
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # it has just closed this one
                links.append(str(link.readlink()))
    return [link[len("socket:[") : -1] for link in links if link.startswith("socket:[")]


def _sockets() -> dict[str, tuple[str, str, int]]:
    """Protocol, address and port by the number of the socket."""
    found = {}
    for protocol in ("tcp", "tcp6", "udp", "udp6"):
        waiting = _LISTENS if protocol.startswith("tcp") else _UNCONNECTED
        for line in Path(f"/proc/net/{protocol}").read_text().splitlines()[1:]:
            fields = line.split()
            address, _, port = fields[1].partition(":")
            if fields[3] != waiting:
                continue
            words = bytes.fromhex(address)  # in 32-bit words of the machine's byte order
            packed = b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))
            family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
            found[fields[9]] = (protocol, socket.inet_ntop(family, packed), int(port, 16))
    return found
