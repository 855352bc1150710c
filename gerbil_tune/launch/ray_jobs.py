"""Jobs of a standing Ray cluster: what is submitted, and following and stopping it."""

import re
import secrets
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gerbil_tune.errors import ConfigError, LaunchError, StoppedError
from gerbil_tune.launch.ray_api import STOP_WAIT_VARIABLE, JobsApi, JobState, UnreachableError
from gerbil_tune.urls import without_password

HOME_VARIABLE = "GERBIL_TUNE_HOME"
DEFAULT_STOP_WAIT_S = 120
POLL_S = 2.0
_LOG_SHARE = 20
"""A log is asked for again after that many times what the last answer took: all of it comes each time."""
_PATIENCE_S = 120.0
"""With a dashboard that does not answer, as while a tunnel or the head is started anew."""
_STOP_MARGIN_S = 30.0
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET_NAME = re.compile(r"TOKEN|PASSWORD|PASSWD|SECRET|CREDENTIAL|(?:^|_)KEY$|_KEY_ID$", re.I)


@dataclass(frozen=True)
class RayJob:
    """A job as Ray is told of it.

    Attributes:
        command: Arguments of ``gerbil-tune``.
        program: Absolute path of ``gerbil-tune`` on the cluster's machines.
        folder: Where it runs; all machines must reach it at this path.
        stop_wait_s: Between asking the job to stop and killing it.
        environment: Further variables for the command and all its workers.
    """

    command: tuple[str, ...]
    program: str
    folder: Path
    stop_wait_s: int = DEFAULT_STOP_WAIT_S
    environment: Mapping[str, str] | None = None

    def entrypoint(self) -> str:
        """The shell line that Ray runs; with exec, so that a stop reaches the program and nothing between."""
        return f"cd {shlex.quote(str(self.folder))} && exec {shlex.join([self.program, *self.command])}"

    def request(self, job_id: str) -> dict[str, object]:
        """The body of the request that starts it.

        RAY_AUTH_MODE is not in it: the command takes it from the cluster, and Ray refuses a variable that
        both a job and its driver set for their workers.
        """
        variables = {
            HOME_VARIABLE: str(self.folder),  # else one that the cluster was started with would win
            **(self.environment or {}),
            STOP_WAIT_VARIABLE: str(self.stop_wait_s),
        }
        return {
            "submission_id": job_id,
            "entrypoint": self.entrypoint(),
            "runtime_env": {"env_vars": variables},
        }


def new_job_id(command: Sequence[str]) -> str:
    """A name that says what runs, as the dashboard shows it."""
    word = re.sub(r"[^a-z]", "", command[0])[:20] if command else ""
    return f"gerbil-tune-{word or 'job'}-{secrets.token_hex(4)}"


def job_environment(pairs: Sequence[str]) -> dict[str, str]:
    """Read NAME=value texts.

    Raises:
        ConfigError: If one is none, would change Ray itself, or looks like a secret: everybody who can
            see the dashboard can read a job's environment.
    """
    environment = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not _VARIABLE.fullmatch(name) or "\0" in value:
            raise ConfigError(
                f"--env is {without_password(pair)!r}; valid: NAME=value, such as MLFLOW_TRACKING_URI=http://m:5000"
            )
        if name.startswith("RAY_"):
            raise ConfigError(
                f"--env sets {name}; variables of Ray are set where the cluster is started"
            )
        if _SECRET_NAME.search(name) or without_password(value) != value:
            raise ConfigError(
                f"--env would show the secret in {name} to everybody who sees the cluster's dashboard; set "
                "it where the cluster is started"
            )
        environment[name] = value
    return environment


def check_version(api: JobsApi) -> None:
    """Refuse a cluster of another Ray before anything is submitted to it.

    Raises:
        LaunchError: If its version is not the one that this program uses.
    """
    try:
        ours = version("ray")
    except PackageNotFoundError:  # a submission host without Ray
        return
    theirs = api.ray_version()
    if theirs != ours:
        raise LaunchError(
            f"the cluster at {api.address} runs Ray {theirs}, and this gerbil-tune needs Ray {ours}; start "
            "the cluster from the environment in which gerbil-tune is installed"
        )


class _Log:
    """Prints what is new in a job's log; what it cannot read now it reads later."""

    def __init__(self, api: JobsApi, job_id: str, write: Callable[[str], object]) -> None:
        self._api, self._job_id, self._write = api, job_id, write
        self._shown = 0
        self._due = 0.0

    def show_news(self, *, at_once: bool = False) -> None:
        begin = time.monotonic()
        if begin < self._due and not at_once:
            return
        try:
            text = self._api.log(self._job_id)
        except (
            LaunchError
        ):  # the machine with the log may be gone; the state says what became of the job
            text = ""
        end = time.monotonic()
        self._due = end + _LOG_SHARE * (end - begin)
        if len(text) > self._shown:
            self._write(text[self._shown :])
            self._shown = len(text)


def follow(
    api: JobsApi, job_id: str, write: Callable[[str], object], poll_s: float = POLL_S
) -> int:
    """Print a job's log until it is over.

    Args:
        api: The cluster.
        job_id: The job.
        write: Gets the log, as it grows.
        poll_s: Between two questions.

    Returns:
        The exit code of its command.

    Raises:
        StoppedError: If it was stopped.
        LaunchError: If Ray could not run it, or the dashboard is away for two minutes.
    """
    log = _Log(api, job_id, write)
    answered = time.monotonic()
    while True:
        try:
            state = api.state(job_id)
        except UnreachableError as error:
            if time.monotonic() - answered > _PATIENCE_S:
                raise LaunchError(f"{error}; the job {job_id} may still run") from None
        else:
            answered = time.monotonic()
            log.show_news(at_once=state.is_over)
            if state.is_over:
                return _exit_code(job_id, state)
        time.sleep(poll_s)


def _exit_code(job_id: str, state: JobState) -> int:
    if state.status == "SUCCEEDED":
        return 0
    if state.status == "STOPPED":
        raise StoppedError(f"job {job_id} was stopped; the same command goes on")
    if state.exit_code is None:
        reason = " ".join(state.message.split())[:600] or "Ray gives no reason"
        raise LaunchError(f"Ray could not run job {job_id} to its end: {reason}")
    # As a shell tells of a process that a signal has ended.
    return state.exit_code if state.exit_code >= 0 else 128 - state.exit_code


def stop(api: JobsApi, job_id: str, *, wait: bool = True, poll_s: float = POLL_S) -> JobState:
    """Ask a job to stop, and wait until it has.

    Returns:
        Its last state; a job that was over before stays as it was.

    Raises:
        LaunchError: If it is not over in time.
    """
    api.stop(job_id)
    begin = time.monotonic()
    while not (state := api.state(job_id)).is_over and wait:
        wait_s = state.stop_wait_s + _STOP_MARGIN_S
        if time.monotonic() - begin > wait_s:
            raise LaunchError(
                f"job {job_id} is still {state.status} {wait_s:.0f} s after it was asked to stop"
            )
        time.sleep(poll_s)
    return state
