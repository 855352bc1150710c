"""Ask every machine of a cluster, before the work begins, whether it can do its part.

Data and results lie on a file system that all machines share, and each needs this program. A machine on which
that is not so would fail one trial after another; so each is asked by a task of its own, and the first answer
that is not right ends the command with a sentence.
"""

import hashlib
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gerbil_tune
from gerbil_tune.data.events import EventSet
from gerbil_tune.data.splits.splits import Splits
from gerbil_tune.errors import LaunchError

_ANSWER_S = 180.0
"""A machine under load takes long to start the process that answers."""
_SHARED_S = 60.0
"""Network file systems show what another machine has written only after some time."""
_HEAD_BYTES = 2**16
_POLL_S = 0.5
_MARK = ".machines-"

FileFacts = tuple[str, int, str]
"""Path, size and hash of the first bytes."""
Answer = tuple[str, str, str]
"""What is wrong (nothing, version, file or folder), with what, and how; made where nothing of ours may be."""


@dataclass(frozen=True)
class Machine:
    """A machine that may get work.

    Attributes:
        ray_id: Ray's name for it.
        name: What people call it: host name and address.
    """

    ray_id: str
    name: str


def check_machines(files: Iterable[Path], shared_dir: Path | None = None) -> None:
    """Refuse a cluster of which a machine cannot read the data or write results.

    Does nothing where this machine is the only one.

    Machines that join later are not asked.

    Args:
        files: What all machines read; see ``files_of``.
        shared_dir: Folder into which all machines write, made if it is not there; None: they write nothing.

    Raises:
        LaunchError: Naming machine and path.
    """
    machines = find_machines()
    if len(machines) == 1 and machines[0].ray_id == _own_machine():
        return
    facts = [describe_file(path) for path in files]
    if shared_dir is None:
        problems = _problems(machines, facts, None, "")
    else:
        shared_dir = shared_dir.resolve()
        with _marked(shared_dir) as mark:
            problems = _problems(machines, facts, shared_dir, mark)
    if problems:
        others = f" (and {len(problems) - 1} more such machines)" if problems[1:] else ""
        raise LaunchError(f"{problems[0]}{others}")


def check_training_machines(splits: Splits, source_folder: str | None, shared_dir: Path) -> None:
    """``check_machines`` for whoever trains on some events; see there.

    Args:
        splits: The events.
        source_folder: Folder of the sounds that impulse responses are convolved with, if there are any.
        shared_dir: Folder of the study or run.
    """
    files = files_of(splits.train, splits.validation, source_folder=source_folder)
    check_machines(files, shared_dir)


def _problems(
    machines: Sequence[Machine], facts: list[FileFacts], shared_dir: Path | None, mark: str
) -> list[str]:
    """A sentence for each machine on which something is wrong."""
    folder = "" if shared_dir is None else str(shared_dir)
    answers = _ask(machines, (gerbil_tune.__version__, facts, folder, mark, _SHARED_S))
    told = [_problem(machine, answer, folder) for machine, answer in answers]
    found = [sentence for sentence in told if sentence]
    return found if found or shared_dir is None else _unseen(machines, shared_dir, mark)


@contextmanager
def _marked(shared_dir: Path) -> Iterator[str]:
    """Put a file into the folder for the others to find; all such files are gone in the end."""
    shared_dir.mkdir(parents=True, exist_ok=True)
    mark = f"{_MARK}{secrets.token_hex(8)}"
    try:
        (shared_dir / mark).write_text(mark)
        yield mark
    finally:
        for path in shared_dir.glob(f"{mark}*"):
            path.unlink(missing_ok=True)


def files_of(*event_sets: EventSet | None, source_folder: str | None = None) -> list[Path]:
    """The files that whoever works on some events reads.

    Args:
        *event_sets: Of training and validation, for example; None is left out.
        source_folder: Folder of the sounds that impulse responses are convolved with.
    """
    files = [file for events in event_sets if events is not None for file in events.files]
    paths = [path for file in files for path in (file.path, file.audio_path)]
    if source_folder is not None:
        paths += sorted(
            path for path in Path(source_folder).expanduser().iterdir() if path.is_file()
        )
    return list(dict.fromkeys(paths))


def describe_file(path: Path) -> FileFacts:
    """Say what a file looks like from here.

    Raises:
        LaunchError: If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = hashlib.blake2b(file.read(_HEAD_BYTES), digest_size=16).hexdigest()
        return str(path), path.stat().st_size, head
    except OSError as error:
        raise LaunchError(f"{path}: cannot be read any more ({error.strerror})") from None


def find_machines() -> list[Machine]:
    """Machines that live and have a CPU or GPU to give, in the order of their names."""
    import ray

    found = [
        Machine(entry["NodeID"], f"{entry['NodeManagerHostname']} ({entry['NodeManagerAddress']})")
        for entry in ray.nodes()
        if entry["Alive"] and {"CPU", "GPU"} & set(entry["Resources"])
    ]
    return sorted(found, key=lambda machine: (machine.name, machine.ray_id))


def _own_machine() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def _ask(machines: Sequence[Machine], question: tuple[Any, ...]) -> list[tuple[Machine, Answer]]:
    """Put the question to all machines at once; those that die meanwhile give no answer."""
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    probe = ray.remote(num_cpus=0, max_retries=0)(make_probe())
    asked = {
        probe.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(machine.ray_id, soft=False)
        ).remote(machine.ray_id, *question): machine
        for machine in machines
    }
    ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_S)
    answers: list[tuple[Machine, Answer]] = []
    for reference, machine in asked.items():
        if reference not in ready:
            silence = ("silent", "", f"for {_ANSWER_S:.0f} s")
            answers.append((machine, silence))
            continue
        try:
            answers.append((machine, ray.get(reference)))
        except RayError as error:
            answers.append((machine, ("silent", "", " ".join(str(error).split())[:300])))
    alive = {machine.ray_id for machine in find_machines()}
    for reference in set(asked) - set(ready):
        ray.cancel(reference, force=True)
    return [(machine, answer) for machine, answer in answers if machine.ray_id in alive]


def make_probe() -> Callable[..., Answer]:
    """Make the function that looks around on a machine.

    It is made here, inside a function, so that it is sent as a whole: one of a module is sent by name, and a
    machine without this program, or with another version of it, could not say so.
    """

    def probe(
        ray_id: str,
        version: str,
        files: Sequence[FileFacts],
        folder: str,
        mark: str,
        patience_s: float,
    ) -> Answer:
        import hashlib
        import time
        from pathlib import Path

        try:
            import gerbil_tune

            if gerbil_tune.__version__ != version:
                return "version", gerbil_tune.__version__, ""
        except Exception as error:
            return "version", "", f"{type(error).__name__}: {error}"
        for path, size, head in files:
            try:
                with Path(path).open("rb") as file:
                    here = hashlib.blake2b(file.read(2**16), digest_size=16).hexdigest()
                if (Path(path).stat().st_size, here) != (size, head):
                    return "file", path, "another file is there"
            except OSError as error:
                return "file", path, error.strerror or str(error)
        deadline, why = time.monotonic() + patience_s, ""
        while folder and time.monotonic() < deadline:
            try:
                (Path(folder) / f"{mark}-{ray_id}").write_text(mark)
                if (Path(folder) / mark).read_text() == mark:
                    return "", "", ""
            except PermissionError as error:
                return "folder", folder, error.strerror or str(error)
            except OSError as error:
                why = error.strerror or str(error)
            time.sleep(0.5)
        return ("folder", folder, why) if folder else ("", "", "")

    return probe


def _problem(machine: Machine, answer: Answer, folder: str) -> str:
    """One sentence for an answer; empty if all is right."""
    kind, what, how = answer
    here = gerbil_tune.__version__
    sentences = {
        "": "",
        "silent": f"the machine {machine.name} did not answer ({how}); see Ray's logs there, or take it out "
        "of the cluster",
        "version": f"the machine {machine.name} has gerbil_tune {what or f'not at all ({how})'}, but here it "
        f"is {here}; install {here} in the environment from which Ray was started there",
        "file": f"the machine {machine.name} cannot read {what} ({how}); put the data on a file system that "
        "all machines have under the same path, and --cache-dir too",
        "folder": f"the machine {machine.name} cannot write into {folder} what is seen here ({how}); run "
        "the command in a folder that all machines share",
    }
    return sentences[kind]


def _unseen(machines: Sequence[Machine], shared_dir: Path, mark: str) -> list[str]:
    """Problems of machines whose marks do not appear here; a folder of the same name is not the same."""
    deadline = time.monotonic() + _SHARED_S
    while True:
        alive = {machine.ray_id for machine in find_machines()}
        missing = [
            machine
            for machine in machines
            if machine.ray_id in alive and not (shared_dir / f"{mark}-{machine.ray_id}").exists()
        ]
        if not missing or time.monotonic() > deadline:
            break
        time.sleep(_POLL_S)
    lost = ("folder", "", "what it writes does not arrive")
    return [_problem(machine, lost, str(shared_dir)) for machine in missing]
