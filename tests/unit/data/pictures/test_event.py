import time

import numpy as np
import pytest
from PIL import Image
from typer import Typer
from typer.testing import CliRunner

from gerbil_tune.cli.data.show import show
from gerbil_tune.config.schema import DataConfig
from gerbil_tune.data.events import open_events
from gerbil_tune.data.pictures.arena import FLOOR_COLOR, marker_of
from gerbil_tune.data.pictures.arena_map import KEYPOINT_COLORS, ArenaMap, nose_of
from gerbil_tune.data.pictures.event import draw_event
from gerbil_tune.errors import ConfigError, DatasetError

CORNERS = [(x, y, 300.0) for x in (-280, 280) for y in (-170, 170)]


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(np.int16)


def rgb(colour):
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.int16)


def where(picture, colour):
    """Bounding box of a colour: left, right, upper and lower edge in pixels; None where there is none."""
    found = (np.abs(picture - rgb(colour)).max(axis=2) <= 2).nonzero()
    if not len(found[0]):
        return None
    return found[1].min(), found[1].max(), found[0].min(), found[0].max()


@pytest.fixture
def draw(make_event_file, tmp_path):
    """Draws an event of a made file; returns the pixels."""

    def draw(i=0, config=None, **options):
        events = open_events(make_event_file(**options))
        path = draw_event(tmp_path / "event.png", events, i, config or DataConfig())
        assert path == tmp_path / "event.png"
        assert sorted(p.name for p in tmp_path.glob("*png*")) == ["event.png"]
        return pixels(path)

    return draw


@pytest.mark.parametrize("arena_mm", [(572.0, 356.0), (300.0, 800.0, 400.0)])
def test_the_arena_is_to_scale(draw, arena_mm):
    left, right, upper, lower = where(draw(arena_mm=arena_mm), FLOOR_COLOR)

    assert (right - left) / (lower - upper) == pytest.approx(arena_mm[0] / arena_mm[1], rel=0.02)


def test_keypoints_are_at_their_places(draw):
    locations = np.array([[[-200.0, 100.0], [100.0, -50.0]]])
    picture = draw(lengths=[500], keypoints=("nose", "head"), locations=locations)
    left, right, upper, lower = where(picture, FLOOR_COLOR)
    for k, (x_mm, y_mm) in enumerate(locations[0]):
        inside = picture[upper:lower, left:right]
        box = where(inside, KEYPOINT_COLORS[k])
        middle = (box[0] + box[1]) / 2, (box[2] + box[3]) / 2
        expected = (x_mm / 572 + 0.5) * (right - left), (0.5 - y_mm / 356) * (lower - upper)
        np.testing.assert_allclose(middle, expected, atol=4)


def test_a_chosen_keypoint_is_the_only_one(draw):
    picture = draw(
        lengths=[500],
        config=DataConfig(keypoints=("head",)),
        keypoints=("nose", "head"),
        locations=np.full((1, 2, 2), [[0, 0], [99, 9]]),
    )
    assert where(picture, KEYPOINT_COLORS[1]) is None
    assert where(picture, KEYPOINT_COLORS[0]) is not None


def test_a_tone_is_bright_at_its_frequency(draw):
    audio = np.sin(2 * np.pi * 0.25 * np.arange(8000))[:, None]
    picture = draw(
        lengths=[8000], num_microphones=1, audio=audio, arena_mm=None, sample_rate_hz=None
    )
    left, right, upper, lower = where(picture[:, :800], "#000004")  # the darkest of the colour map
    bright = picture[upper:lower, left:right].sum(axis=(1, 2)).argmax()

    assert bright / (lower - upper) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("num_microphones", [1, 11])
def test_any_number_of_microphones(draw, num_microphones):
    picture = draw(num_microphones=num_microphones, lengths=[700], dtype="int16")

    assert 400 < picture.shape[0] < 1600
    assert 1200 < picture.shape[1] < 2400
    assert len(np.unique(picture[..., 0])) > 100


def test_what_the_file_does_not_say_is_left_out(draw):
    bare = {"sample_rate_hz": None, "arena_mm": None, "lengths": [700]}
    picture = draw(**bare, locations=None)
    assert where(picture, FLOOR_COLOR) is None
    assert where(picture, KEYPOINT_COLORS[0]) is None
    config = DataConfig(arena_mm=(400.0, 400.0), sample_rate_hz=96_000.0)
    left, right, upper, lower = where(draw(config=config, **bare), FLOOR_COLOR)
    assert right - left == pytest.approx(lower - upper, abs=2)


@pytest.mark.parametrize(
    "options",
    [
        {"lengths": [0, 5]},
        {"lengths": [1], "name": "多点 $_{x}$.h5"},
        {"lengths": [900], "audio": np.zeros((900, 4)), "dtype": "int16", "groups": [7]},
        {"lengths": [900], "audio": np.full((900, 4), np.nan), "onsets_s": [1.5]},
        {"lengths": [900], "locations": np.full((1, 2), np.nan), "microphones_mm": CORNERS},
        {"lengths": [900], "keypoints": [f"$k_{k}$" for k in range(15)], "num_axes": 3},
        {"lengths": [900], "layout": "rir", "name": f"{'long' * 40}.h5"},
    ],
    ids=["empty", "foreign", "silent", "not finite", "nowhere", "many keypoints", "response"],
)
def test_odd_events_are_drawn(draw, options):
    assert draw(**options).size > 0


def test_a_point_beyond_the_map_is_open_at_its_edge(draw):
    picture = draw(lengths=[900], locations=np.array([[1e6, 0.0]]))
    _, right, upper, lower = where(picture, FLOOR_COLOR)
    beside = picture[upper:lower, right:]
    box = where(beside, KEYPOINT_COLORS[0])

    assert (box[2] + box[3]) / 2 == pytest.approx((lower - upper) / 2, abs=3)
    middle = beside[(box[2] + box[3]) // 2, (box[0] + box[1]) // 2]
    np.testing.assert_array_equal(middle, 255)


@pytest.mark.parametrize("i", [-1, 3])
def test_an_event_out_of_range_is_told(draw, i):
    with pytest.raises(ConfigError, match=r"--event is .*has 3 events; valid: 0 to 2$"):
        draw(i, lengths=[300] * 3)


def test_an_unknown_keypoint_is_told(draw):
    with pytest.raises(DatasetError, match=r"tail.*valid: nose"):
        draw(config=DataConfig(keypoints=("tail",)))


def test_a_folder_that_does_not_exist_is_told(make_event_file, tmp_path):
    events = open_events(make_event_file(lengths=[300]))
    with pytest.raises(ConfigError, match=r"none/event\.png cannot be written: No such file"):
        draw_event(tmp_path / "none" / "event.png", events, 0, DataConfig())


def test_the_command_names_its_picture(make_event_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_event_file("calls.h5", arena_mm=None)
    app = Typer()
    app.command()(show)
    assert CliRunner().invoke(app, ["calls.h5"]).output == "wrote calls_event_0.png\n"
    assert CliRunner().invoke(app, ["calls.h5", "--event", "3"]).exit_code == 0
    named = ["calls.h5", "-o", "mine.png", "--set", "data/arena_mm=[500, 250]"]
    assert CliRunner().invoke(app, named).exit_code == 0

    assert sorted(path.name for path in tmp_path.glob("*.png")) == [
        "calls_event_0.png",
        "calls_event_3.png",
        "mine.png",
    ]
    left, right, upper, lower = where(pixels(tmp_path / "mine.png"), FLOOR_COLOR)
    assert (right - left) / (lower - upper) == pytest.approx(2, rel=0.02)


def test_thirty_microphones_cost_no_more_than_ten_times_three(draw):
    def seconds(num_microphones):
        started = time.process_time()
        draw(num_microphones=num_microphones, lengths=[30_000], dtype="int16")
        return time.process_time() - started

    draw(num_microphones=2, lengths=[300])  # loads fonts, which is not the picture's time
    assert seconds(30) < 10 * seconds(3)


def test_maps_hold_what_stands_around_the_arena():
    plain = ArenaMap.around((600, 400), None)
    wide = ArenaMap.around((600, 400, 300), [(-350.0, 0.0, 9.0), (np.nan, 1.0, 1.0)])
    far = ArenaMap.around((600, 400), None, np.array([[1e9, 30.0], [np.nan, np.nan]]))

    assert plain.arena_mm == (600, 400)
    assert plain.half_widths_mm == pytest.approx((330, 230))
    assert wide.half_widths_mm == pytest.approx((380, 230))
    assert far.half_widths_mm == pytest.approx((630, 230))
    assert far.show((700.0, -10.0)) == far.show((1e9, -10.0))
    assert not far.show((700.0, -10.0)).is_inside
    assert far.show((629.0, -10.0)).is_inside
    assert far.show((0.0, np.nan)) is None


def test_keypoints_are_told_apart():
    assert len({marker_of(k) for k in range(36)}) == 36
    assert nose_of(("head", "Nose")) == 1
    assert nose_of(("head", "tail")) == 0
