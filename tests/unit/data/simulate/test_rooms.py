"""Presets, rooms from YAML, and the errors of both."""

from pathlib import Path

import pytest
import yaml

from gerbil_tune.data.simulate import PRESETS, load_room, make_spec
from gerbil_tune.errors import ConfigError
from gerbil_tune.geometry import RecordingSetup, mirror_permutation

ROOM = {
    "size_mm": [600, 400, 350],
    "sample_rate_hz": 125000,
    "microphones_mm": [[295, 195, 290], [-295, 195, 290], [-295, -195, 290], [295, -195, 290]],
    "absorption": {"walls": 0.15, "floor": 0.6, "ceiling": 0.9},
}


def write_room(folder: Path, **changes: object) -> Path:
    path = folder / "lab.yaml"
    path.write_text(yaml.safe_dump(ROOM | changes))
    return path


@pytest.mark.parametrize(
    ("name", "num_microphones", "rate_hz"), [("e1", 4, 125e3), ("e2", 8, 192e3), ("e3", 24, 250e3)]
)
def test_presets_are_the_labs_arenas_and_mirror_symmetric(
    name: str, num_microphones: int, rate_hz: float
) -> None:
    room = PRESETS[name]
    assert len(room.microphones_mm) == num_microphones
    assert room.sample_rate_hz == rate_hz
    setup = RecordingSetup(num_microphones, rate_hz, room.size_mm, room.microphones_mm)
    for axis in (0, 1):
        order = mirror_permutation(setup, axis)
        assert order is not None
        for channel, image in enumerate(order):
            mirrored = list(room.microphones_mm[channel])
            mirrored[axis] *= -1
            assert mirrored == pytest.approx(room.microphones_mm[image], abs=1e-9)
    for x, y, z in room.microphones_mm:
        gaps = (room.size_mm[0] / 2 - abs(x), room.size_mm[1] / 2 - abs(y), room.size_mm[2] - z)
        assert min(gaps) >= 4.9


def test_e1_channels_follow_the_predecessors_order() -> None:
    signs = [(x > 0, y > 0) for x, y, _ in PRESETS["e1"].microphones_mm]
    assert signs == [(True, True), (False, True), (False, False), (True, False)]


def test_room_from_yaml(tmp_path: Path) -> None:
    room = load_room(write_room(tmp_path, image_order=3))
    assert room.name == "lab"
    assert room.size_mm == (600.0, 400.0, 350.0)
    assert room.microphones_mm[1] == (-295.0, 195.0, 290.0)
    assert room.absorption.floor == 0.6
    assert room.image_order == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"microphones_mm": [[301, 0, 100], [0, 0, 100]]}, "microphone 0 at .* outside the room"),
        ({"microphones_mm": [[0, 0, 100], [0, 0, -1]]}, "microphone 1 at .* outside the room"),
        ({"microphones_mm": [[0, 0, 100]]}, "microphones_mm"),
        ({"absorption": {"walls": 1.5}}, r"absorption\.walls.*received 1\.5"),
        ({"colour": "blue"}, "colour"),
        ({"sample_rate_hz": "fast"}, "sample_rate_hz.*received 'fast'"),
        ({"size_mm": [0.6, 0.4, 0.35]}, r"size_mm\.0.*received 0\.6"),
    ],
)
def test_mistakes_in_a_room_are_named_with_the_file(
    tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    path = write_room(tmp_path, **changes)
    with pytest.raises(ConfigError, match=words) as caught:
        load_room(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "a: [1, 2", "", "\x00"])
def test_a_room_file_that_is_no_mapping(tmp_path: Path, text: str) -> None:
    path = tmp_path / "room.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"room\.yaml"):
        load_room(path)


def test_a_room_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_room(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"snr_db": (20.0, 5.0)}, "snr_db must be ordered"),
        ({"keypoints": 3}, "keypoints.*received 3"),
        ({"source_height_mm": (20.0, 400.0)}, "only 368.3 mm high"),
        ({"source_height_mm": (-1.0, 20.0)}, "source_height_mm"),
        ({"fundamental_hz": (60e3, 70e3)}, "fundamental_hz"),
        ({"snr_db": (float("nan"), 5.0)}, "snr_db"),
        ({"loudness": 3}, "loudness"),
    ],
)
def test_mistakes_in_the_ranges(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_spec(PRESETS["e1"], **options)
