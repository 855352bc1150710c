import json
import math

import pytest

from gerbil_tune.errors import DatasetError
from gerbil_tune.models.calibrated import NUM_ZONES, Calibration, ConformalThresholds
from gerbil_tune.models.caller_rule import CallerRule

NOSE, HEAD = (1.0, 4.0, math.inf), (1.5, 5.0, 7.0)


def calibration() -> Calibration:
    """Of two keypoints; the first zone has thresholds of its own for the first of them."""
    zones = (((0.5, 3.0, 6.0), None), *(((None, None),) * (NUM_ZONES - 1)))
    return Calibration(1.25, ConformalThresholds((0.5, 0.9, 0.95), (NOSE, HEAD), zones, 18))


def stored(**changes) -> dict:
    """The JSON of ``calibration``; changes go to its conformal part."""
    values = json.loads(json.dumps(calibration().to_json(), allow_nan=False))
    values["conformal"] |= changes
    return values


RULE = CallerRule(1.2, 0.1, (10.0, 20.0), (0.05,), ((math.inf, 2.5, 1.0, 0.5),), 640)


@pytest.mark.parametrize(
    "whole", [calibration(), Calibration(), Calibration(0.5), Calibration(callers=RULE)]
)
def test_what_is_written_is_read(whole: Calibration) -> None:
    text = json.dumps(whole.to_json(), allow_nan=False)

    assert Calibration.from_json(json.loads(text), "calibration.json") == whole


def test_the_file_says_infinite_by_null() -> None:
    conformal = stored()["conformal"]

    assert conformal["overall"] == [[1.0, 4.0, None], [1.5, 5.0, 7.0]]
    assert conformal["zones"][0] == [[0.5, 3.0, 6.0], None]
    assert conformal["num_events"] == 18


def test_a_covariance_scale_is_a_temperature() -> None:
    assert Calibration.from_json({"covariance_scale": 2}, "a file") == Calibration(2.0)


@pytest.mark.parametrize("temperature", [0, -1.0, math.inf, math.nan, "1", True, None])
def test_a_temperature_that_is_none_is_refused(temperature: object) -> None:
    with pytest.raises(DatasetError, match=r"^x/calibration.json: temperature must be a number"):
        Calibration.from_json({"temperature": temperature}, "x/calibration.json")


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"levels": None}, "conformal/levels"),
        ({"levels": []}, "conformal/levels"),
        ({"levels": [0.5, 0.5, 0.9]}, "conformal/levels"),
        ({"levels": [0.5, math.nan, 0.9]}, "conformal/levels"),
        ({"levels": [0.5, 0.9, 1.0]}, "conformal/levels"),
        ({"overall": []}, "conformal/overall"),
        ({"overall": [[1.0, 2.0]]}, "conformal/overall/0"),
        ({"overall": [[1.0, 2.0, 3.0], "abc"]}, "conformal/overall/1"),
        ({"overall": [[1.0, None, 3.0]]}, "conformal/overall/0"),
        ({"overall": [[-1.0, 2.0, 3.0]]}, "conformal/overall/0"),
        ({"overall": [[1.0, math.nan, 3.0]]}, "conformal/overall/0"),
        ({"zones": [[None, None]]}, "conformal/zones"),
        ({"zones": [[None]] * NUM_ZONES}, "conformal/zones/0"),
        ({"zones": [[None, [1.0]]] * NUM_ZONES}, "conformal/zones/0/1"),
        ({"num_events": 0}, "conformal/num_events"),
        ({"num_events": 1.5}, "conformal/num_events"),
    ],
)
def test_damaged_thresholds_are_refused_by_name(changes: dict, name: str) -> None:
    with pytest.raises(DatasetError, match=rf"^c\.json: {name} must be .* but is "):
        Calibration.from_json(stored(**changes), "c.json")


@pytest.mark.parametrize("content", [None, [], 1.0])
def test_other_content_is_refused(content: object) -> None:
    with pytest.raises(DatasetError, match=r"c\.json: the content must be a JSON object"):
        Calibration.from_json(content, "c.json")
    with pytest.raises(DatasetError, match=r"c\.json: conformal must be a JSON object"):
        ConformalThresholds.from_json(content, "c.json")
