"""Every machine of a cluster is asked whether it can do its part, before the work begins."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gerbil_tune import __version__
from gerbil_tune.errors import LaunchError
from tests.conftest import write_event_file
from tests.faults.bystanders import Bystander
from tests.faults.machines import SeveralNodes, joined_node, several_nodes
from tests.integration.command_line import SPACE, clean_environment

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ASK = """
from pathlib import Path

def ask():
    from gerbil_tune.data.events import open_events
    from gerbil_tune.training import cluster_nodes
    from gerbil_tune.training.ray_runtime import start_ray

    cluster_nodes._SHARED_S = 3.0
    start_ray()
    print(len(cluster_nodes.find_machines()), "machines")
    files = cluster_nodes.files_of(open_events(Path("data")))
    cluster_nodes.check_machines(files, Path("studies/one"))
    print("all can")

from gerbil_tune.cli.app import run
run(ask)
"""


@pytest.fixture(scope="module")
def ray_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="gt"))  # sockets need a short path
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def one_machine(ray_folder: Path) -> Iterator[SeveralNodes]:
    with several_nodes(ray_folder, 1) as nodes:
        yield nodes


def make_folder(path: Path) -> Path:
    """Put data and a place for studies into a folder."""
    write_event_file(path / "data" / "calls.h5")
    (path / "studies").mkdir()
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path)


@pytest.fixture
def cluster(
    one_machine: SeveralNodes, ray_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> SeveralNodes:
    """A cluster of one machine; if others had joined it, they are gone."""
    if any(ray_folder.glob("joined-*")):
        elsewhere = make_folder(tmp_path_factory.mktemp("elsewhere"))
        one_machine.cluster.wait_for(
            lambda: ask(one_machine, elsewhere).stdout.startswith("1 machines"), "end of the node"
        )
    return one_machine


def ask(cluster: SeveralNodes, folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Ask all machines of a cluster, or run another command on it."""
    return subprocess.run(
        [sys.executable, *(words or ("-c", ASK))],
        cwd=folder,
        env={**clean_environment(), "RAY_ADDRESS": cluster.address},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


@pytest.fixture
def join(cluster: SeveralNodes, ray_folder: Path) -> Iterator[Callable[..., Bystander]]:
    """Lets another node join the cluster until the end of the test."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(
            joined_node(ray_folder, cluster.address, **options)
        )


@pytest.mark.exhaustive
def test_all_machines_can(cluster, join, folder):
    join()
    done = ask(cluster, folder)
    assert (done.returncode, done.stdout) == (0, "2 machines\nall can\n"), done.stderr
    assert list((folder / "studies" / "one").iterdir()) == []


def test_the_only_machine_is_not_asked(cluster, folder):
    done = ask(cluster, folder)
    assert (done.returncode, done.stdout) == (0, "1 machines\nall can\n"), done.stderr
    assert not (folder / "studies" / "one").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a machine other folders")
def test_a_machine_that_cannot_read_the_data(cluster, join, folder, make_bundle):
    join(hidden=folder / "data")
    done = ask(cluster, folder)
    assert done.returncode == LaunchError.exit_code, done.stdout + done.stderr
    data = folder / "data" / "calls.h5"
    assert f"cannot read {data} (No such file or directory)" in done.stderr
    assert "put the data on a file system that all machines have" in done.stderr
    assert done.stderr.count("\n") == 1
    (folder / "space.yaml").write_text(SPACE)
    model = str(make_bundle())
    commands = (
        ("search", "space.yaml"),
        ("train", "--workers", "2"),
        ("predict", "--model", model, "-o", "out", "--workers", "2"),
    )
    for words in commands:
        done = ask(cluster, folder, "-m", "gerbil_tune", *words, "--data", "data")
        assert done.returncode == LaunchError.exit_code, done.stdout + done.stderr
        assert f"cannot read {data} (No such file or directory)" in done.stderr
        assert "trial 0 starts" not in done.stdout
    assert list((folder / "out").rglob("*.h5")) == []


@pytest.mark.exhaustive
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a machine other folders")
def test_a_machine_that_writes_elsewhere(cluster, join, folder):
    join(hidden=folder / "studies")
    done = ask(cluster, folder)
    assert done.returncode == LaunchError.exit_code, done.stdout + done.stderr
    assert f"cannot write into {folder / 'studies' / 'one'} what is seen here" in done.stderr
    assert "run the command in a folder that all machines share" in done.stderr
    assert list((folder / "studies" / "one").iterdir()) == []


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("__version__ = '0.0.1'", f"has gerbil_tune 0.0.1, but here it is {__version__}; install"),
        ("raise ImportError('no torch')", "has gerbil_tune not at all (ImportError: no torch)"),
    ],
)
def test_a_machine_with_another_version(cluster, join, folder, code, says):
    package = folder / "other" / "gerbil_tune"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(code)
    join(python_path=package.parent)
    done = ask(cluster, folder)
    assert done.returncode == LaunchError.exit_code, done.stdout + done.stderr
    assert says in done.stderr
