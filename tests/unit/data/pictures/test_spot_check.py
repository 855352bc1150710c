import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from gerbil_tune.config.schema import DataConfig
from gerbil_tune.data.events import open_events, recording_setup
from gerbil_tune.data.pictures.spot_check import choose_removed, write_spot_check
from gerbil_tune.data.pictures.thumbnails import palette, thumbnail_png, tile_columns, tile_size
from gerbil_tune.errors import ConfigError

HOSTILE = "</script><b>\"&'"
VOID = {"meta", "wbr", "img", "br", "link"}
RATE_HZ = 125_000.0


class Page(HTMLParser):
    """Checks that elements nest, and collects what the tests look at."""

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.shown, self.events, self.shapes = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.links += [values[name] for name in ("src", "href", "action") if name in values]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "article":
            self.events.append({"tags": values["data-tags"].split(), "text": "", "shapes": []})
        if "article" in self.open and tag in ("circle", "polyline"):
            self.events[-1]["shapes"].append((tag, values))
        if tag == "img":
            self.events[-1]["image"] = values["src"]

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.shown.append(data)
            if "article" in self.open:
                self.events[-1]["text"] += data + " "


@pytest.fixture
def make_page(make_event_file, tmp_path):
    """Writes the page of a made file; returns its text and what is in it."""

    def make(reasons, counts, options=None, **file_options):
        events = open_events(make_event_file(**file_options))
        setup = recording_setup(events, DataConfig())
        path = write_spot_check(
            tmp_path / "out" / "spot.html", events, setup, reasons, counts, **(options or {})
        )
        assert [entry.name for entry in path.parent.iterdir()] == ["spot.html"]
        text = path.read_text(encoding="utf-8")
        return text, Page(text)

    return make


def test_the_page_shows_kept_and_removed_events_with_their_reasons(make_page):
    reasons = {3: ["skeleton: nose and head 312 mm apart", "silence"], 7: ["silence: -61 dB"]}
    counts = {"skeleton": 1, "clipping": 0, "silence": 2}
    _, page = make_page(
        reasons, counts, num_events=12, keypoints=("nose", "head"), sample_rate_hz=RATE_HZ
    )
    removed, kept = page.events[:2], page.events[2:]

    assert [event["text"].split()[:2] for event in removed] == [["event", "3"], ["event", "7"]]
    places = [int(event["text"].split()[1]) for event in kept]
    assert places == [0, 1, 2, 4, 5, 6, 8, 9, 10, 11]
    assert removed[0]["tags"] == ["all", "removed", "filter-0", "filter-2"]
    assert removed[1]["tags"] == ["all", "removed", "filter-2"]
    assert all(event["tags"] == ["all", "kept"] for event in kept)
    assert "skeleton : nose and head 312 mm apart silence" in removed[0]["text"]
    assert re.search(r"\d\.\d ms · .* dB re 1", kept[0]["text"])
    shown = " ".join(" ".join(page.shown).split())
    assert (
        "filter removed of all shown skeleton 1 8.3% 1 clipping 0 0.0% 0 silence 2 16.7% 2" in shown
    )
    assert "All 12 Removed 2 Kept 10 skeleton 1 silence 2" in shown
    assert "12 events 10 kept 2 removed, 16.7% of all 12 shown here: 2 removed, 10 kept" in shown


def test_the_page_needs_nothing_from_outside(make_page):
    text, page = make_page({0: ["silence"]}, {"silence": 1}, num_events=3)

    without_images = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", text)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", without_images)
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in page.links)
    assert 'id="arena"' in text


def test_all_text_is_escaped(make_page):
    text, page = make_page(
        {0: [f"{HOSTILE}: {HOSTILE}"]},
        {HOSTILE: 1},
        num_events=3,
        name="a<i>&.h5",
        keypoints=("nose", HOSTILE),
    )

    assert text.count("<script>") == text.count("</script>") == 1
    assert HOSTILE not in text
    assert page.events[0]["text"].count(HOSTILE) == 3  # the filter, what it found, a keypoint
    assert "Spot check of a<i>&.h5" in page.shown


def test_keypoints_are_at_their_places(make_page):
    locations = np.array([[[100.0, 50.0], [90.0, -40.0]], [[9e9, 50.0], [0.0, np.nan]]])
    text, page = make_page(
        {}, {}, lengths=[400, 400], keypoints=("head", "nose"), locations=locations
    )
    head, nose = (shape for tag, shape in page.events[0]["shapes"] if tag == "circle")

    assert (head["cx"], head["cy"], nose["cx"], nose["cy"]) == ("100", "-50", "90", "40")
    assert float(nose["r"]) > float(head["r"])
    ((_, lost),) = (item for item in page.events[1]["shapes"] if item[0] == "circle")
    assert lost["class"] == "beyond"
    left, top, width, height = map(float, re.search(r'viewBox="(-[^"]+)"', text)[1].split())
    assert float(lost["cx"]) == pytest.approx(left + width, abs=1)
    assert (left, top) == pytest.approx((-width / 2, -height / 2), abs=1)
    assert 'x="-286" y="-178" width="572" height="356"' in text


@pytest.mark.parametrize("locations", [None, np.full((3, 2), np.nan)])
def test_events_without_locations(make_page, locations):
    _, page = make_page({}, {}, lengths=[400] * 3, locations=locations)

    assert len(page.events) == 3
    assert ("no location" in page.shown) == (locations is not None)
    assert not any(event["shapes"] for event in page.events)


def test_filters_take_turns():
    reasons = {i: ["many"] for i in range(1000)}
    reasons |= {i: ["some: why"] for i in range(1000, 1050)}
    reasons |= {2000: ["one", "many"], 2001: []}
    filters = ["many", "some", "one", "never", "unnamed filter"]
    chosen = choose_removed(reasons, filters, 21, np.random.default_rng(0))

    assert len(set(chosen)) == 21
    first = ["".join(reasons[place])[:4] or "-" for place in chosen]
    assert first == ["many"] * 10 + ["onem"] + ["some"] * 9 + ["-"]
    again = choose_removed(reasons, filters, 21, np.random.default_rng(0))
    other = choose_removed(reasons, filters, 21, np.random.default_rng(1))
    assert chosen == again != other
    everything = choose_removed(reasons, filters, 10**6, np.random.default_rng(0))
    assert sorted(everything) == sorted(reasons)


def test_so_many_are_shown_and_told(make_page):
    told = []
    reasons = {i: ["snr"] for i in range(20)}
    options = {"num_kept": 5, "num_removed": 7, "advance": told.append}
    _, page = make_page(reasons, {"snr": 20}, options, num_events=40)

    assert told == [1] * 12
    assert sum("kept" in event["tags"] for event in page.events) == 5
    assert sum("removed" in event["tags"] for event in page.events) == 7


def test_a_filter_that_only_the_reasons_name_is_counted(make_page):
    _, page = make_page({0: [], 1: ["odd", "odd: twice"]}, {}, num_events=4)

    shown = " ".join(" ".join(page.shown).split())
    assert "unnamed filter 1 25.0% 1 odd 1 25.0% 1" in shown


def test_a_page_that_cannot_be_written_is_told(make_event_file, tmp_path):
    events = open_events(make_event_file(num_events=1))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"spot\.html cannot be written: "):
        write_spot_check(
            tmp_path / "file" / "spot.html", events, recording_setup(events, DataConfig()), {}, {}
        )


@pytest.mark.parametrize("num_microphones", [1, 2, 4, 6, 9, 24])
def test_a_thumbnail_has_a_spectrogram_for_each_microphone(num_microphones):
    silent = num_microphones - 1
    audio = np.random.default_rng(0).standard_normal((5000, num_microphones))
    audio[:, silent] = 0.0
    with Image.open(io.BytesIO(thumbnail_png(audio, RATE_HZ))) as image:
        sheet, colours = np.asarray(image), image.convert("RGBA")
    width, height = tile_size(num_microphones)
    columns = tile_columns(num_microphones)
    rows = -(-num_microphones // columns)

    assert sheet.shape == (rows * (height + 2) - 2, columns * (width + 2) - 2)
    for microphone in range(num_microphones):
        row, column = divmod(microphone, columns)
        top, left = row * (height + 2), column * (width + 2)
        tile = sheet[top : top + height, left : left + width]
        assert tile.min() >= 1
        assert (tile.max() == 1) == (microphone == silent)
    if columns > 1:
        assert not sheet[:, width : width + 2].any()
        assert colours.getpixel((width, 0))[3] == 0
    assert colours.getpixel((0, 0))[:3] == tuple(palette()[sheet[0, 0] - 1])


def test_low_frequencies_are_at_the_bottom():
    tone = np.sin(2 * np.pi * 0.1 * np.arange(8000))[:, None]
    with Image.open(io.BytesIO(thumbnail_png(tone, RATE_HZ))) as image:
        sheet = np.asarray(image)

    assert 1 - sheet.sum(axis=1).argmax() / len(sheet) == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize(("num_microphones", "most_mb"), [(4, 8), (24, 25)])
def test_three_hundred_events_of_noise_stay_small(make_page, num_microphones, most_mb):
    """Noise is what compresses least."""
    text, page = make_page(
        {0: ["silence: nothing"]},
        {"silence": 1},
        num_events=4,
        lengths=(4000, 8000),
        num_microphones=num_microphones,
        keypoints=("nose", "head"),
    )
    in_events = len(text[text.index("<article") : text.rindex("</article>")])

    assert 300 * in_events / len(page.events) < most_mb * 1e6
    for event in page.events:
        png = base64.b64decode(event["image"].removeprefix("data:image/png;base64,"))
        with Image.open(io.BytesIO(png)) as image:
            assert image.size[0] >= 2 * tile_size(num_microphones)[0]
