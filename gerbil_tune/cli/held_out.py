"""The test events beside which a model was trained."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gerbil_tune.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from gerbil_tune.data.events import EventSet

_GIVE_DATA = "name events with locations by --data"


def held_out_events(bundle: Path, other: Path, *, warn: Callable[[str], None]) -> "EventSet":
    """Open the test events of a model's training, to compare it with another.

    Args:
        bundle: Folder of the model.
        other: Folder of the one that it is compared with.
        warn: Is told if the other one may have been trained on some of these events.

    Raises:
        ConfigError: If there were none.
        DatasetError: If their files have gone or changed.
    """
    import numpy as np

    from gerbil_tune.data.events import open_events
    from gerbil_tune.models.bundle import read_setup
    from gerbil_tune.models.bundle_files import PROVENANCE_FILE, TEST_EVENTS_FILE, read_json
    from gerbil_tune.models.ensemble import is_ensemble, member_folders

    provenance = read_json(bundle / PROVENANCE_FILE)
    first = member_folders(bundle)[0] if is_ensemble(bundle) else bundle
    files, rows_file = provenance.get("test_files"), first / TEST_EVENTS_FILE
    if not files or not rows_file.is_file():
        raise ConfigError(f"{bundle} was trained without test events; {_GIVE_DATA}")
    try:
        events = open_events([Path(file) for file in files])
    except DatasetError as error:
        raise DatasetError(
            f"the test events of {bundle} cannot be read ({error}); {_GIVE_DATA}"
        ) from None
    rows_N = np.load(rows_file, allow_pickle=False)
    if rows_N.max(initial=-1) < len(events):
        events = events.subset(rows_N).select_keypoints(read_setup(bundle).keypoints)
    if events.fingerprint() != provenance.get("test_fingerprint"):
        raise DatasetError(
            f"the test events of {bundle} are no longer what they were in its training: {files[0]} has "
            f"changed; {_GIVE_DATA}"
        )
    if may_have_seen(bundle, other):
        warn(
            f"{other.name or other} was trained on other data, of which some of these events may be a part; "
            f"if so, {_GIVE_DATA} that neither model has seen"
        )
    return events


def may_have_seen(bundle: Path, other: Path) -> bool:
    """Whether a model may have been trained on the test events of another model's training."""
    from gerbil_tune.models.bundle_files import PROVENANCE_FILE, read_json

    here, there = (read_json(folder / PROVENANCE_FILE) for folder in (bundle, other))
    same = ("data_fingerprint", "test_fingerprint")
    return not any(here.get(name) == there.get(name) for name in same)
