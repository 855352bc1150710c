"""Promotion compares with the champion on the same events, and refuses what is worse."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from gerbil_tune.cli.app import app
from gerbil_tune.cli.held_out import held_out_events
from gerbil_tune.cli.registry import register_bundle_folder
from gerbil_tune.config.schema import DataConfig
from gerbil_tune.data.events import open_events, recording_setup
from gerbil_tune.errors import ConfigError, DatasetError, GerbilTuneError
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.bundle_files import PROVENANCE_FILE, TEST_EVENTS_FILE, read_json, write_json
from gerbil_tune.tracking.champions import champion_version, make_champion

NUM_EVENTS = 60
HONEST, SURE = 1e4, 1e-4
"""Temperatures: of regions that hold every location, and none."""


def give_test_events(bundle: Path, recording: Path, rows: np.ndarray) -> None:
    """Write what an export writes of the test events."""
    test = open_events(recording).subset(rows)
    provenance = read_json(bundle / PROVENANCE_FILE)
    provenance |= {"test_files": [str(recording)], "test_fingerprint": test.fingerprint()}
    write_json(bundle / PROVENANCE_FILE, provenance)
    np.save(bundle / TEST_EVENTS_FILE, test.rows)


@pytest.fixture
def lab(
    make_bundle: Callable[..., Path],
    make_event_file: Callable[..., Path],
    mlflow_store: str,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> "Lab":
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
    recording = make_event_file("calls.h5", num_events=NUM_EVENTS, keypoints=("nose", "ear"))
    return Lab(request.node.name, mlflow_store, make_bundle, recording)


class Lab:
    """A registered model, and events with locations."""

    def __init__(
        self, name: str, uri: str, make_bundle: Callable[..., Path], recording: Path
    ) -> None:
        self.name, self.uri, self.recording = name, uri, recording
        self._make_bundle = make_bundle

    def register(self, temperature: float, rows: np.ndarray | None = None) -> int:
        setup = open_setup(self.recording)
        bundle = self._make_bundle(setup, temperature=temperature)
        if rows is not None:
            give_test_events(bundle, self.recording, rows)
        return register_bundle_folder(bundle, self.uri, name=self.name)[1]

    def promote(self, *arguments: object) -> Result:
        words = ["promote", self.name, *map(str, arguments)]
        return CliRunner().invoke(app, words)

    @property
    def champion(self) -> int | None:
        return champion_version(self.name, self.uri)


def open_setup(recording: Path) -> RecordingSetup:
    return recording_setup(open_events(recording), DataConfig())


@pytest.mark.slow
def test_a_worse_model_is_refused_unless_forced(lab: Lab) -> None:
    rows = np.arange(0, NUM_EVENTS, 2)
    assert lab.register(HONEST, rows) == 1
    assert lab.promote(1).exit_code == 0, "there is none to compare it with"
    assert lab.register(SURE, rows) == 2

    refused = lab.promote(2)
    assert isinstance(refused.exception, GerbilTuneError)
    assert refused.exception.exit_code == 1
    assert "is worse than the champion, version 1, in coverage; --force" in str(refused.exception)
    assert f"{len(rows)} events" in refused.stdout
    assert "beyond chance, version 2 is worse in coverage than version 1" in refused.stdout
    assert lab.champion == 1

    forced = lab.promote(2, "--force")
    assert forced.exit_code == 0
    assert "--rollback" in forced.stdout
    assert lab.champion == 2
    better = lab.promote(1, "--data", lab.recording)
    assert better.exit_code == 0
    assert "better in coverage" in better.stdout
    assert lab.champion == 1
    assert "is version 1 already" in lab.promote(1).stdout
    assert "is version 2 again" in lab.promote("--rollback").stdout
    assert lab.champion == 2


@pytest.mark.slow
def test_without_events_to_compare_on_it_is_said_what_to_do(lab: Lab) -> None:
    for _ in range(2):
        lab.register(HONEST)
    make_champion(lab.name, 1, lab.uri)
    for arguments, says in [
        ((2,), "was trained without test events; name events with locations by --data"),
        ((2, "--events", "some.npy"), "chooses events of --data, which is missing"),
        ((), "which version of"),
        ((1, "--rollback"), "takes nothing but the model"),
    ]:
        refused = lab.promote(*arguments)
        assert isinstance(refused.exception, ConfigError)
        assert says in str(refused.exception)
    assert lab.champion == 1


def test_test_events_that_changed_are_not_used(
    make_bundle: Callable[..., Path], make_event_file: Callable[..., Path]
) -> None:
    recording = make_event_file("calls.h5", num_events=20, keypoints=("nose", "ear"))
    bundle, other = (make_bundle(open_setup(recording)) for _ in range(2))
    rows = np.array([3, 7, 11])
    give_test_events(bundle, recording, rows)
    warnings: list[str] = []
    found = held_out_events(bundle, bundle, warn=warnings.append)
    np.testing.assert_array_equal(found.rows, rows)
    assert not warnings

    write_json(other / PROVENANCE_FILE, {"data_fingerprint": "another"})
    held_out_events(bundle, other, warn=warnings.append)
    assert "trained on other data, of which some of these events may be a part" in warnings[0]

    with h5py.File(recording, "a") as file:
        file["locations"][3] += 1
    with pytest.raises(DatasetError, match="no longer what they were in its training"):
        held_out_events(bundle, bundle, warn=warnings.append)
    recording.unlink()
    with pytest.raises(DatasetError, match="cannot be read"):
        held_out_events(bundle, bundle, warn=warnings.append)
