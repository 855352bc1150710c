"""How the ranks of a worker group find each other, without a port that is open to everybody.

Ray Train lets rank 0 listen on all interfaces of its machine. Here it listens on the address that Ray itself
has on that machine: the loopback for an instance on one machine, else what the other machines know it by.
"""

import os
import socket
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _TorchBackend
from torch._C._distributed_c10d import TCPStore

_STORE_TIMEOUT_S = 120.0
"""For the other ranks to come, once all of their processes run."""

_served: list[TCPStore] = []
"""What rank 0 serves, for as long as its process lives."""


class GroupConfig(TorchConfig):
    """Ray's settings of a group of torch processes, and our own way of setting it up."""

    @property
    def backend_cls(self) -> type[Any]:
        """What Ray Train calls when a group starts and ends."""
        return _GroupBackend


class _GroupBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        """Let rank 0 serve the store, and all ranks join through it."""
        import ray

        place = worker_group.execute_single(0, serve_store, len(worker_group))
        worker_group.execute(_set_torch_distributed_env_vars)
        ray.get(
            [
                worker_group.execute_single_async(
                    rank,
                    join_group,
                    backend=backend_config.backend,
                    place=place,
                    world_rank=rank,
                    world_size=len(worker_group),
                    timeout_s=backend_config.timeout_s,
                )
                for rank in range(len(worker_group))
            ]
        )


def serve_store(world_size: int, address: str | None = None) -> tuple[str, int]:
    """Begin to serve the store of a group in this process.

    Args:
        world_size: Ranks of the group.
        address: Address of this machine to listen on; None: the one that Ray has here.

    Returns:
        Address and port.
    """
    if address is None:
        import ray

        address = ray.util.get_node_ip_address()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind((address, 0))
        listener.listen()
        port = int(listener.getsockname()[1])
        _served[:] = [
            TCPStore(
                address,
                port,
                world_size,
                is_master=True,
                timeout=timedelta(seconds=_STORE_TIMEOUT_S),
                wait_for_workers=False,
                # The store closes what it is given, and this block its own.
                master_listen_fd=os.dup(listener.fileno()),
            )
        ]
    return address, port


def join_group(
    backend: str, place: tuple[str, int], world_rank: int, world_size: int, timeout_s: float
) -> None:
    """Join the group whose rank 0 serves the store at a place; returns when all have joined.

    Args:
        backend: ``gloo`` or ``nccl``.
        place: From ``serve_store``.
        world_rank: Of this process.
        world_size: Ranks of the group.
        timeout_s: Of the group's operations.
    """
    if backend == "nccl":  # as Ray Train does: an operation that hangs ends the process
        os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")
    address, port = place
    store = TCPStore(
        address,
        port,
        world_size,
        is_master=False,
        timeout=timedelta(seconds=_STORE_TIMEOUT_S),
        wait_for_workers=False,
    )
    dist.init_process_group(
        backend=backend,
        store=store,
        rank=world_rank,
        world_size=world_size,
        timeout=timedelta(seconds=timeout_s),
    )
