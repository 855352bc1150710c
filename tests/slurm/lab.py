"""A real SLURM of two compute nodes on this machine, and the jobs in it; see slurmlab.sh."""

import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.integration.command_line import clean_environment

CLUSTER = Path(__file__).parents[2] / "cluster"
_SCRIPT = Path(__file__).with_name("slurmlab.sh")
_POLL_S = 0.3
RAY = r"raylet/raylet|gcs_server|ray::|/ray start|ray/dashboard"
"""In the command lines of Ray's processes."""
_OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED")


class SlurmLab:
    """A lab that lives in a ``with`` statement."""

    def __init__(self) -> None:
        self._folder = Path(
            tempfile.mkdtemp(prefix="lab-", dir="/tmp")
        )  # munge's socket: a short path

    def __enter__(self) -> "SlurmLab":
        try:
            self._script("start")
        except subprocess.CalledProcessError:
            self._script("stop", check=False)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave nothing behind."""
        self._script("stop")
        shutil.rmtree(self._folder)

    def _script(self, command: str, *arguments: str, check: bool = True, **options: Any) -> str:
        return subprocess.run(
            [str(_SCRIPT), command, str(self._folder), *arguments],
            check=check,
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
            **options,
        ).stdout

    def run(self, *command: str, check: bool = True, **options: Any) -> str:
        """Run a command on the login host and return what it prints."""
        return self._script("run", *command, check=check, **options)

    def submit(
        self,
        folder: Path,
        *arguments: str,
        script: str = "ray.sbatch",
        options: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> "Job":
        """Hand a script of ``cluster/`` to sbatch, in a folder."""
        given = {k: v for k, v in clean_environment().items() if not k.startswith("SLURM_")}
        number = self.run(
            *("sbatch", "--parsable", "--output=job-%j.log", *options, str(CLUSTER / script)),
            *arguments,
            cwd=folder,
            env={**given, "GERBIL_TUNE_TMP": str(self._folder / "tmp"), **(environment or {})},
        )
        return Job(self, number.strip(), folder / f"job-{number.strip()}.log")

    def kill_node(self, number: int) -> None:
        """Take the power from a compute node."""
        self._script("kill", str(number))

    def processes(self, pattern: str, node: int | None = None) -> list[int]:
        """Ids, on this machine's login host, of processes by their command lines."""
        network = "" if node is None else (self._folder / f"node-{node}.netns").read_text()
        inode = "".join(re.findall(r"\d+", network))
        found = []
        for line in self.run("ps", "-ww", "-eo", "pid=,netns=,args=").splitlines():
            pid, where, arguments = line.split(None, 2)
            if re.search(pattern, arguments) and inode in ("", where):
                found.append(int(pid))
        return found

    def assert_nothing_left(self, *, nodes_lost: int = 0) -> None:
        """Check that no process of Ray, and no file of it on a node that lives, is there any more."""
        wait_for(lambda: not self.processes(RAY), "end of Ray's processes", 10)
        assert len(list((self._folder / "tmp").iterdir())) == nodes_lost


class Job:
    """A job in a lab."""

    def __init__(self, lab: SlurmLab, number: str, log_file: Path) -> None:
        self.lab = lab
        self.number = number
        self.log_file = log_file

    def field(self, name: str) -> str:
        """What ``scontrol show job`` says, such as JobState or ExitCode."""
        shown = self.lab.run("scontrol", "show", "job", self.number, check=False)
        return "".join(re.findall(rf"\b{name}=(\S+)", shown)[:1])

    def log(self) -> str:
        """What it has printed so far."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def is_over(self) -> bool:
        """Whether it has ended for good."""
        return self.field("JobState") in _OVER

    def wait_for(self, condition: Callable[[], Any], what: str, timeout_s: float = 180.0) -> None:
        """Wait for something while the job lives."""

        def look() -> bool:
            found = bool(condition())
            assert found or not self.is_over(), (
                f"{self.field('JobState')} before {what}\n{self.log()}"
            )
            return found

        wait_for(look, what, timeout_s, self.log)

    def assert_ends(self, state: str, timeout_s: float = 240.0) -> None:
        """Wait for its end, and check JobState and ExitCode, such as ``COMPLETED 0:0``."""
        wait_for(self.is_over, f"end of job {self.number}", timeout_s, self.log)
        found = f"{self.field('JobState')} {self.field('ExitCode')}"
        assert found == state, f"{found}\n{self.log()}"

    def warn(self) -> None:
        """Do what SLURM does before the time limit."""
        self.lab.run("scancel", "--signal=USR1", "--batch", self.number)

    def wait_for_requeue(self, times: int) -> None:
        """Wait until it is in the queue again, and spare it the two minutes that SLURM has it wait."""

        def is_queued() -> bool:
            now = tuple(map(self.field, ("Restarts", "JobState", "Reason")))
            return now == (str(times), "PENDING", "BeginTime")

        wait_for(is_queued, f"requeue {times}", 120, self.log)
        self.lab.run("scontrol", "update", f"JobId={self.number}", "StartTime=now")


def wait_for(
    condition: Callable[[], Any],
    what: str,
    timeout_s: float,
    describe: Callable[[], str] = lambda: "",
) -> None:
    """Wait for a condition.

    Raises:
        AssertionError: If the time is over.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"no {what} in {timeout_s:g} s\n{describe()}"
        time.sleep(_POLL_S)
