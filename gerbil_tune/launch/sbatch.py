"""The command line that gives a command to SLURM, as a pure function of its options."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gerbil_tune.errors import ConfigError

SCRIPT = "ray.sbatch"
CLUSTER_DIR_VARIABLE = "GERBIL_TUNE_CLUSTER_DIR"
DEFAULT_JOB_NAME = "gerbil-tune"
DEFAULT_OUTPUT = "%x-%j.log"

_OPTION = re.compile(r"(?P<name>[a-z][a-z-]*[a-z])(?:=(?P<value>.*))?", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SITE_LINE = re.compile(r"\s*(?:export\s+)?SBATCH_[A-Z0-9_]+=")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_ONE_TASK = "the scripts start one task on each node"
_REFUSED = {
    "ntasks": _ONE_TASK,
    "ntasks-per-node": _ONE_TASK,
    "ntasks-per-core": _ONE_TASK,
    "ntasks-per-gpu": _ONE_TASK,
    "ntasks-per-socket": _ONE_TASK,
    "wrap": "the job runs the scripts of gerbil-tune",
    "parsable": "gerbil-tune reads the job's number itself",
    "array": "every task would run the same command; run_array.sh runs one config a task",
}
_OWN = ("nodes", "gpus-per-node", "cpus-per-task", "mem", "time", "partition", "account", "qos")
_OWN_TOO = ("job-name", "output")


@dataclass(frozen=True)
class SlurmResources:
    """What a job asks for. None leaves the choice to the site and its cluster.

    Attributes:
        nodes: Compute nodes.
        gpus_per_node: GPUs on each of them.
        cpus_per_task: CPUs on each of them, for one task runs on each.
        memory: On each of them, such as 64G.
        time: SLURM time limit, such as 24:00:00 or 2-00:00:00.
        partition: Queue.
        account: Who is charged.
        qos: Quality of service.
        job_name: Shown by squeue, and the first part of the log's name.
        output: Pattern of the log's name, such as logs/%x-%j.log.
        options: Further options of sbatch, as ``name=value`` or ``name``.

    Raises:
        ConfigError: If a text is empty or holds a control character, or a further option is none that the
            scripts can do with.
    """

    nodes: int = 1
    gpus_per_node: int = 0
    cpus_per_task: int = 8
    memory: str | None = None
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    job_name: str = DEFAULT_JOB_NAME
    output: str = DEFAULT_OUTPUT
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what sbatch would read as something else."""
        for name, text in self._texts().items():
            if text is not None and (not text or _CONTROL.search(text)):
                raise ConfigError(
                    f"--{name} is {text!r}; valid: a text that is not empty and has no control characters"
                )
        for option in self.options:
            _check_option(option)

    def _texts(self) -> dict[str, str | None]:
        return {
            "mem": self.memory,
            "time": self.time,
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "job-name": self.job_name,
            "output": self.output,
        }

    def arguments(self) -> list[str]:
        """The options of sbatch."""
        numbers = {"nodes": self.nodes, "cpus-per-task": self.cpus_per_task}
        if self.gpus_per_node:
            numbers["gpus-per-node"] = self.gpus_per_node
        texts = self._texts()
        if self.job_name == DEFAULT_JOB_NAME:
            del texts["job-name"]  # the script says the same, and a site may say otherwise
        if self.output == DEFAULT_OUTPUT:
            del texts["output"]
        options = [f"--{name}={number}" for name, number in numbers.items()]
        options += [f"--{name}={text}" for name, text in texts.items() if text is not None]
        return [*options, *(f"--{option}" for option in self.options)]


def _check_option(option: str) -> None:
    match = _OPTION.fullmatch(option)
    if match is None or _CONTROL.search(option):
        raise ConfigError(
            f"--sbatch-option is {option!r}; valid: the long name of an option of sbatch, and its value "
            "after =, such as constraint=a100 or exclusive"
        )
    name = match["name"]
    if name in _REFUSED:
        raise ConfigError(f"--sbatch-option {name} is not possible: {_REFUSED[name]}")
    if name in (*_OWN, *_OWN_TOO):
        raise ConfigError(
            f"--sbatch-option {name} is an option of gerbil-tune itself; write --{name}"
        )


@dataclass(frozen=True)
class SbatchCommand:
    """A command line and what it needs in its environment.

    Attributes:
        argv: ``sbatch``, its options, the script and the command.
        environment: Variables that sbatch, and through it the job, is to find.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]

    def shell_line(self) -> str:
        """The same for a shell; a copy of it submits the job."""
        assignments = [f"{name}={shlex.quote(text)}" for name, text in self.environment.items()]
        return " ".join([*assignments, shlex.join(self.argv)])


def sbatch_command(
    resources: SlurmResources,
    command: Sequence[str],
    scripts_dir: Path,
    program: str,
    defaults: Mapping[str, str] | None = None,
) -> SbatchCommand:
    """Return the command line that runs a ``gerbil-tune`` command on SLURM.

    Args:
        resources: What to ask for.
        command: Arguments of ``gerbil-tune``, such as ``["search", ...]``.
        scripts_dir: Folder of ``ray.sbatch``; sbatch copies the script, which then cannot know it.
        program: Absolute path of ``gerbil-tune`` on the compute nodes.
        defaults: SBATCH_ variables of the site, which options override.
    """
    defaults = dict(sorted((defaults or {}).items()))
    script = str(scripts_dir / SCRIPT)
    return SbatchCommand(
        argv=("sbatch", *resources.arguments(), script, program, *command),
        environment={CLUSTER_DIR_VARIABLE: str(scripts_dir), **defaults},
    )


def read_site_defaults(text: str, source: str) -> dict[str, str]:
    """Return the SBATCH_ variables that a ``site.env`` sets.

    The job sources the file, too late for what sbatch is to be told. So these lines are read here, and
    nothing of the file is run on the login node.

    Args:
        text: The file's text.
        source: Its name, for the message.

    Raises:
        ConfigError: If such a line is no plain assignment.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not _SITE_LINE.match(line):
            continue
        try:
            words = [word for word in shlex.split(line, comments=True) if word != "export"]
        except ValueError:
            words = [""]
        pairs = [word.partition("=") for word in words]
        if re.search(r"[$`]", line) or not all(
            equals and _NAME.fullmatch(name) for name, equals, _ in pairs
        ):
            raise ConfigError(
                f"{source}:{number}: lines with SBATCH_ variables must be plain NAME=value, for they are "
                f"read without a shell; received {line.strip()!r}"
            )
        found |= {name: value for name, _, value in pairs if name.startswith("SBATCH_")}
    return {name: value for name, value in found.items() if value}
