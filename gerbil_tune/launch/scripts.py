"""Where this installation keeps its program and its scripts for clusters."""

import shutil
import sys
from pathlib import Path


def scripts_dir() -> Path:
    """Folder of ``ray.sbatch`` and its companions; in a checkout this is a link to ``cluster/``."""
    return Path(__file__).resolve().parent / "cluster"


def own_program() -> str:
    """Absolute path of this installation's ``gerbil-tune``."""
    beside_python = Path(sys.executable).with_name("gerbil-tune")
    return (
        str(beside_python)
        if beside_python.exists()
        else shutil.which("gerbil-tune") or "gerbil-tune"
    )
