"""The jobs API of a Ray cluster's dashboard, over HTTP: no Ray is imported, so it answers at once.

Source of the paths and fields: Ray's "Ray Jobs REST API" page, and ray/dashboard/modules/job/job_head.py.
"""

import http.client
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any

from gerbil_tune.errors import ConfigError, LaunchError
from gerbil_tune.launch.addresses import is_loopback

STOP_WAIT_VARIABLE = "RAY_JOB_STOP_WAIT_TIME_S"
_STOP_WAIT_S = 3
"""Ray's, for a job that says nothing."""
_TIMEOUT_S = 30.0
_TOKEN_FILE = "~/.ray/auth_token"


class UnreachableError(LaunchError):
    """The dashboard did not answer, and may answer later."""


@dataclass(frozen=True)
class JobState:
    """What the dashboard says of a job.

    Attributes:
        status: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED.
        message: Why, in Ray's words; may have many lines.
        exit_code: Of the command; None if it has not ended by itself.
        stop_wait_s: Between asking it to stop and killing it.
    """

    status: str
    message: str
    exit_code: int | None
    stop_wait_s: int

    @property
    def is_over(self) -> bool:
        """Whether the status is final."""
        return self.status in {"STOPPED", "SUCCEEDED", "FAILED"}


def read_token(environment: Mapping[str, str]) -> str | None:
    """Find the cluster's token where Ray itself looks for it; None: there is none.

    Raises:
        ConfigError: If RAY_AUTH_TOKEN_PATH names no readable file, or an empty one.
    """
    if environment.get("RAY_AUTH_MODE") == "disabled":
        return None
    if token := environment.get("RAY_AUTH_TOKEN", "").strip():
        return token
    named = environment.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named or _TOKEN_FILE).expanduser()
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        if not named:
            return None
        raise ConfigError(
            f"RAY_AUTH_TOKEN_PATH names {path}, which cannot be read ({error})"
        ) from None
    if named and not token:
        raise ConfigError(f"RAY_AUTH_TOKEN_PATH names {path}, which is empty")
    return token or None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would take the token to another server."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> None:
        """Follow none; the answer is then an error with its code."""


class JobsApi:
    """One cluster's jobs.

    Args:
        address: The dashboard's URL.
        token: Sent with each request; None: nothing is.

    Attributes:
        address: The dashboard's URL.
    """

    def __init__(self, address: str, token: str | None) -> None:
        self.address = address
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if is_loopback(address):  # a proxy could not reach it
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

    def ray_version(self) -> str:
        """The cluster's version of Ray."""
        answer = self._ask("/api/version")
        version = answer.get("ray_version")
        if not isinstance(version, str):
            raise LaunchError(
                f"{self.address} does not answer as the dashboard of a Ray cluster does"
            )
        return version

    def submit(self, request: Mapping[str, object]) -> str:
        """Start a job; return its id."""
        answer = self._ask("/api/jobs/", request)
        return str(answer.get("submission_id") or answer["job_id"])

    def state(self, job_id: str) -> JobState:
        """What has become of a job."""
        answer = self._ask(_path(job_id))
        code = answer.get("driver_exit_code")
        variables = (answer.get("runtime_env") or {}).get("env_vars") or {}
        wait = str(variables.get(STOP_WAIT_VARIABLE, ""))
        return JobState(
            str(answer.get("status")),
            str(answer.get("message") or ""),
            code if isinstance(code, int) else None,
            int(wait) if wait.isdecimal() else _STOP_WAIT_S,
        )

    def log(self, job_id: str) -> str:
        """All that a job has printed so far."""
        return str(self._ask(f"{_path(job_id)}/logs").get("logs") or "")

    def stop(self, job_id: str) -> None:
        """Ask a job to stop; it has the time that it was submitted with."""
        self._ask(f"{_path(job_id)}/stop", {})

    def _ask(self, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        request = urllib.request.Request(
            self.address + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={**self._headers, "Content-Type": "application/json"},
        )
        try:
            with self._opener.open(request, timeout=_TIMEOUT_S) as response:
                answer = json.loads(response.read())
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(
                    error.code, path, error.read().decode(errors="replace")
                ) from None
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError(
                f"no Ray dashboard answers at {self.address} ({_reason(error)}); --address must be the URL "
                "of the cluster's dashboard, such as http://head:8265, and from outside of its network a "
                "tunnel helps: ssh -L 8265:127.0.0.1:8265 HEAD"
            ) from None
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise LaunchError(
                f"{self.address} does not answer as the dashboard of a Ray cluster does"
            )
        return answer

    def _refusal(self, code: int, path: str, body: str) -> LaunchError:
        if code in {401, 403}:
            what = "asks for a token" if code == 401 else "refuses the token that was sent"
            return LaunchError(
                f"the Ray cluster at {self.address} {what} (HTTP {code}); set RAY_AUTH_TOKEN_PATH to a file "
                f"with the token that the cluster was started with, or put it into {_TOKEN_FILE}"
            )
        if code == 404 and "does not exist" in body:
            job_id = urllib.parse.unquote(path.split("/")[3])
            return LaunchError(f"the Ray cluster at {self.address} has no job {job_id}")
        if code in {502, 503, 504}:
            return UnreachableError(f"the Ray dashboard at {self.address} is away (HTTP {code})")
        said = " ".join(body.strip().splitlines()[-1:]) or "nothing"
        return LaunchError(
            f"the Ray dashboard at {self.address} answers {path} with HTTP {code}: {said}"
        )


def _path(job_id: str) -> str:
    return f"/api/jobs/{urllib.parse.quote(job_id, safe='')}"


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", error)
    if isinstance(inner, OSError) and inner.errno:
        return os.strerror(inner.errno).lower()
    return " ".join(str(inner).split()) or type(inner).__name__
