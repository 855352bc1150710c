"""The one way to start or join Ray in this program.

A local instance listens on localhost, asks for a token and sends no usage statistics. The dashboard stays
on: Ray Train's clean-up of early-stopped trials asks it whether a controller lives, and without it their
placement group leaks and the next trial waits for ever. Workers are told the address, because with a second
Ray instance on the machine that clean-up could not tell which one is meant.
"""

import logging
import os
import signal
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gerbil_tune.errors import LaunchError

_LOCAL_OBJECT_STORE_BYTES = 256 * 1024**2  # nothing large passes through it: data are memory-mapped

_FOR_THE_DRIVER = (signal.SIGINT, signal.SIGUSR1)

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Snapshots of all trials, for a restore that this project does without.
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
_WORKER_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_AUTH_MODE": "token",
}


def start_ray(num_cpus: int | None = None) -> None:
    """Join the cluster that RAY_ADDRESS names, else start a local one; nothing if already done.

    Args:
        num_cpus: CPUs of a local instance; default: all.

    Raises:
        LaunchError: If Ray cannot be started or reached.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if "ray" not in sys.modules:  # it reads this once, when it is imported
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray

    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    try:
        if address and address != "local":
            _join(address)
        else:
            _start_local(num_cpus)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        where = f"reach Ray at {address}" if address else "start Ray here"
        raise LaunchError(f"cannot {where}: {' '.join(str(error).split())}") from None
    _protect_token()


def _join(address: str) -> None:
    import ray

    ray.init(
        address=address,
        runtime_env={"env_vars": {**_WORKER_ENVIRONMENT, "RAY_ADDRESS": address}},
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def _start_local(num_cpus: int | None) -> None:
    import ray

    # Train's clean-up needs the address before Ray has chosen one, so the port is chosen here.
    port = _free_port()
    os.environ["RAY_GCS_SERVER_PORT"] = str(port)
    address = f"{ray.util.get_node_ip_address()}:{port}"
    worker_environment = {**_WORKER_ENVIRONMENT, "RAY_ADDRESS": address}
    if not os.environ.get("GLOO_SOCKET_IFNAME"):
        # One machine: the loopback always works, whatever its host name resolves to.
        worker_environment["GLOO_SOCKET_IFNAME"] = _loopback_interface()
    with _signals_not_inherited():
        ray.init(
            address="local",  # else it joins an instance that someone has started on this machine
            num_cpus=num_cpus,
            include_dashboard=True,
            dashboard_host="127.0.0.1",
            object_store_memory=_LOCAL_OBJECT_STORE_BYTES,
            runtime_env={"env_vars": worker_environment},
            log_to_driver=False,
            logging_level=logging.ERROR,
        )


@contextmanager
def _signals_not_inherited() -> Iterator[None]:
    """Let the processes that are begun meanwhile not hear what asks this one to stop.

    Ctrl-C goes to all processes of a terminal, and SLURM's warning may go to all of a job; the dashboard
    would die of either, before the trials have written their checkpoints.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_THE_DRIVER)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _loopback_interface() -> str:
    names = [name for _, name in socket.if_nameindex()]
    return next((name for name in names if name.startswith("lo")), names[0])


def _protect_token() -> None:
    """Ray writes its token readable for all."""
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    if token.is_file() and token.stat().st_uid == os.getuid():
        token.chmod(stat.S_IRUSR | stat.S_IWUSR)
