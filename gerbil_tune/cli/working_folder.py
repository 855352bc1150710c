"""Where a command works: not in a copy of a folder that Ray throws away."""

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

from gerbil_tune.errors import ConfigError

HOME_VARIABLE = "GERBIL_TUNE_HOME"
_UPLOADED = ("runtime_resources", "working_dir_files")
"""Folders of Ray's, one in the other, that hold what jobs were submitted with."""
_ONLY_TELL = {"-h", "--help", "--version"}


def enter_working_folder(words: Sequence[str]) -> None:
    """Change into the folder that GERBIL_TUNE_HOME names, if it names one.

    Args:
        words: The command line, without the program.

    Raises:
        ConfigError: If there is no such folder, or the work would be done in the copy of a working directory
            that a Ray job was submitted with: what is left there vanishes with it.
    """
    home = os.environ.get(HOME_VARIABLE)
    if home:
        try:
            os.chdir(Path(home).expanduser())
        except OSError as error:
            raise ConfigError(
                f"{HOME_VARIABLE} is {home!r}, which is no folder that can be entered ({error.strerror}); "
                "name one that all machines share"
            ) from None
    if is_uploaded_copy(Path.cwd()) and not _ONLY_TELL & set(words):
        raise ConfigError(
            f"the working directory {Path.cwd()} is the copy that a Ray job was submitted with, and what is "
            "written there is lost; submit with gerbil-tune submit ray, or 'cd /shared/folder && gerbil-tune "
            f"...' as the job's command, or {HOME_VARIABLE}=/shared/folder in its environment"
        )


def is_uploaded_copy(folder: Path) -> bool:
    """Whether a folder is in the copy of a working directory that Ray has made for a job."""
    return _UPLOADED in itertools.pairwise(folder.parts)
