import json

import pytest

from gerbil_tune.config.cleaning import CleaningConfig, CleaningFile, load_cleaning
from gerbil_tune.config.schema import ConfigModel
from gerbil_tune.errors import ConfigError

FILTERS = list(CleaningConfig.model_fields)


def refusal(*arguments):
    with pytest.raises(ConfigError) as error:
        load_cleaning(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "clean.yaml"
        path.write_text(text)
        return path

    return write


def test_no_file_means_the_defaults():
    assert load_cleaning(None) == CleaningFile()
    assert all(getattr(CleaningFile(), name) is not None for name in FILTERS)


@pytest.mark.parametrize("name", FILTERS)
def test_each_filter_can_be_switched_off(write, name):
    assert getattr(load_cleaning(write(f"{name}: null\n")), name) is None
    off = load_cleaning(None, [f"{name}=null"])
    assert getattr(off, name) is None
    assert all(getattr(off, other) is not None for other in FILTERS if other != name)


def test_every_value_is_explained():
    sections = [type(getattr(CleaningConfig(), name)) for name in FILTERS]
    assert all(section.__doc__ for section in sections)
    unexplained = [
        (section.__name__, name)
        for section in sections
        for name, field in section.model_fields.items()
        if not field.description
    ]
    assert unexplained == []
    assert all(issubclass(section, ConfigModel) for section in sections)


def test_the_command_line_wins_over_the_file(write):
    path = write("snr: {min_db: 6}\nskeleton: {false_positive_rate: 1e-3}\n")
    loaded = load_cleaning(path, ["skeleton/false_positive_rate=1e-5"])
    assert (loaded.snr.min_db, loaded.skeleton.false_positive_rate) == (6, 1e-5)


def test_facts_of_the_site_go_to_the_data_section(write):
    path = write("data: {arena_mm: [500, 300]}\n")
    loaded = load_cleaning(path, ["data/sample_rate_hz=125000", "data/keypoints=[nose, tail]"])
    assert loaded.data.arena_mm == (500, 300)
    assert loaded.data.sample_rate_hz == 125000
    assert loaded.data.keypoints == ("nose", "tail")


def test_what_was_named_is_known():
    named = load_cleaning(None, ["skeleton/transform=log", "snr=null"]).model_fields_set
    assert named == {"skeleton", "snr"}


def test_a_config_survives_json(tmp_path):
    path = tmp_path / "clean.json"
    loaded = load_cleaning(None, ["duration/max_ms=500", "silence/relative_to=full_scale"])
    path.write_text(json.dumps(loaded.model_dump(mode="json")))
    assert load_cleaning(path) == loaded


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("snrr/min_db=3", ["snrr is not a known key", "valid: not_finite, duration"]),
        ("snr/minimum=3", ["snr/minimum is not a known key", "valid: min_db"]),
        ("snr/min_db=-3", ["snr/min_db", "-3"]),
        ("silence/min_level_db=0", ["silence/min_level_db", "less than 0"]),
        ("silence/relative_to=mean", ["silence/relative_to", "'median' or 'full_scale'"]),
        ("clipping/max_share=2", ["clipping/max_share", "2"]),
        ("skeleton/false_positive_rate=0", ["skeleton/false_positive_rate", "greater than 0"]),
        ("skeleton/support_fraction=0.3", ["skeleton/support_fraction", "0.5"]),
        ("skeleton=5", ["skeleton must be a section", "5"]),
        ("keypoint_distance/between=[nose]", ["keypoint_distance/between", "2 items"]),
        ("data/sample_rate_hz=-1", ["data/sample_rate_hz", "-1"]),
        ("data/rate=1", ["data/rate is not a known key"]),
        ("skeleton", ["must be path/to/key=value"]),
    ],
)
def test_mistakes_are_named(override, parts):
    message = refusal(None, [override])
    assert all(part in message for part in parts), message


def test_a_range_must_ascend(write):
    message = refusal(write("duration: {min_ms: 20, max_ms: 10}\n"))
    assert "clean.yaml: duration: min_ms must not be above max_ms" in message
    assert "20 and 10" in message


def test_a_value_of_a_filter_that_is_off(write):
    message = refusal(write("skeleton: null\n"), ["skeleton/transform=log"])
    assert "skeleton is null, not a section" in message
