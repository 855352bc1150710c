"""The one way to start or join Ray in this program.

A local instance listens on the loopback alone, asks for a token and sends no usage statistics. The dashboard
stays on: Ray Train's clean-up of early-stopped trials asks it whether a controller lives, and without it
their placement group leaks and the next trial waits for ever. Workers are told the address, because with a
second Ray instance on the machine that clean-up could not tell which one is meant.
"""

import json
import logging
import os
import secrets
import signal
import socket
import stat
import sys
from collections.abc import Iterator, Mapping
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
_WORKER_ENVIRONMENT = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5"}
_LOOPBACK_VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""``0`` makes Ray, on any system, take the loopback for the machine's address."""
_JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""What a Ray job was submitted with; its driver may not give the same variables again."""
_AUTH_MODE, _TOKEN, _TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
_DRIVERS_OWN = (
    "GERBIL_TUNE_STORAGE",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "PGPASSWORD",
)
_PRIVATE = stat.S_IRUSR | stat.S_IWUSR


def start_ray(num_cpus: int | None = None) -> None:
    """Join the cluster that RAY_ADDRESS names, else start a local one; nothing if already done.

    Args:
        num_cpus: CPUs of a local instance; default: all.

    Raises:
        LaunchError: If Ray cannot be started or reached.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    was_imported = "ray" in sys.modules
    if not was_imported:
        os.environ.setdefault(_AUTH_MODE, "token")
    import ray

    if ray.is_initialized():
        return
    if was_imported and _AUTH_MODE not in os.environ:
        _ask_for_token()
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


def _ask_for_token() -> None:
    """Turn token authentication on in a process in which Ray has read its settings already."""
    from ray._private.authentication.authentication_token_setup import _enable_token_auth

    _enable_token_auth()


def _join(address: str) -> None:
    import ray

    ray.init(
        address=address,
        runtime_env={"env_vars": _not_of_the_job(_worker_environment(address))},
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def _start_local(num_cpus: int | None) -> None:
    import ray

    _make_token()
    # Train's clean-up needs the address before Ray has chosen one, so the port is chosen here.
    port = _free_port()
    os.environ["RAY_GCS_SERVER_PORT"] = str(port)
    with _signals_not_inherited(), _loopback_only(), _secrets_not_inherited():
        environment = _worker_environment(f"{ray.util.get_node_ip_address()}:{port}")
        for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            if not os.environ.get(variable):
                environment[variable] = _loopback_interface()
        ray.init(
            address="local",  # else it joins an instance that someone has started on this machine
            num_cpus=num_cpus,
            include_dashboard=True,
            dashboard_host="127.0.0.1",
            object_store_memory=_LOCAL_OBJECT_STORE_BYTES,
            runtime_env={"env_vars": environment},
            log_to_driver=False,
            logging_level=logging.ERROR,
        )


def _worker_environment(address: str) -> dict[str, str]:
    mode = os.environ.get(_AUTH_MODE)
    return {
        **_WORKER_ENVIRONMENT,
        **({_AUTH_MODE: mode} if mode else {}),
        "RAY_ADDRESS": address,
    }


def _not_of_the_job(environment: Mapping[str, str]) -> dict[str, str]:
    """Leave out what a Ray job, whose driver this is, sets for all of its processes."""
    job = json.loads(os.environ.get(_JOB_VARIABLE) or "{}")
    given = (job.get("runtime_env") or {}).get("env_vars") or {}
    return {name: value for name, value in environment.items() if name not in given}


@contextmanager
def _loopback_only() -> Iterator[None]:
    """Let the instance that is begun meanwhile listen on the loopback alone.

    Ray listens on all interfaces where the machine's address is another one. The processes that it begins
    inherit the variable; this process has read it when it imported Ray.
    """
    from ray._private import ray_constants

    before = os.environ.get(_LOOPBACK_VARIABLE)
    could = ray_constants.ENABLE_RAY_CLUSTER
    os.environ[_LOOPBACK_VARIABLE], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = could
        if before is None:
            del os.environ[_LOOPBACK_VARIABLE]
        else:
            os.environ[_LOOPBACK_VARIABLE] = before


@contextmanager
def _secrets_not_inherited() -> Iterator[None]:
    """Keep what only the driver needs, perhaps with passwords, out of processes that are begun meanwhile."""
    hidden = {name: os.environ.pop(name) for name in _DRIVERS_OWN if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


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


def _token_path() -> Path:
    return Path(os.environ.get(_TOKEN_PATH) or "~/.ray/auth_token").expanduser()


def _make_token() -> None:
    """See that there is a file with a token, which nobody else can read at any moment.

    A token in the environment is for another cluster: here it would be in the environment of each process.
    """
    os.environ.pop(_TOKEN, None)
    path = _token_path()
    if os.environ.get(_AUTH_MODE, "").lower() != "token" or path.exists():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _PRIVATE)
    except OSError as error:
        if path.exists():  # another one has just begun
            return
        raise LaunchError(
            f"{path}: Ray's token cannot be written ({error.strerror}); let {_TOKEN_PATH} name another "
            "file"
        ) from None
    with os.fdopen(file, "w") as writer:
        writer.write(secrets.token_hex(32))


def _protect_token() -> None:
    """Ray, and people, write tokens readable for all."""
    token = _token_path()
    if token.is_file() and token.stat().st_uid == os.getuid():
        token.chmod(_PRIVATE)
