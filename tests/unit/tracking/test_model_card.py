"""The card of a model says what it was trained on, how good it is, and what it is not for."""

from dataclasses import replace

import pytest

from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.tracking.model_card import CardFacts, model_card

FACTS = CardFacts(
    name="gerbil-locator",
    architecture="gcc-net",
    num_parameters=123_456,
    setup=RecordingSetup(4, 125_000.0, (572.0, 356.0), None, ("nose", "tail")),
    metrics={"val_error_median_mm": 24.04, "val_coverage_95": 0.9217},
    temperature=1.25,
    conformal_levels=(0.5, 0.9, 0.95),
    provenance={
        "training_events": 3000,
        "validation_events": 400,
        "data_files": ["/data/monday.h5"],
        "data_fingerprint": "8a0f",
        "study": "monday",
        "trial": 0,
        "package_version": "0.1.0",
        "commit": "",
        "validation_intervals": {"val_error_median_mm": [20.3, 27.96]},
    },
)


@pytest.mark.parametrize(
    "says",
    [
        "the nose and tail of the caller in 2 axes",
        "an arena of 572 x 356 mm, out of 4 microphones at 125 kHz. Network: gcc-net, 123,456 parameters",
        "| training events | 3,000 |",
        "| files | `/data/monday.h5` |",
        "| trial | 0 |",
        "| median error | 24.0 mm | 20.3 mm to 28.0 mm |",
        "| coverage of the 95 % regions | 92.2% |  |",
        "Stated densities are widened by a temperature of 1.25.",
        "Conformal regions hold the location with a probability of 50%, 90%, 95%",
        "## Limits",
        "gerbil-tune predict --model models:/gerbil-locator@champion",
        '"sample_rate_hz": 125000',
    ],
)
def test_what_it_says(says: str) -> None:
    assert says in model_card(FACTS)


def test_what_is_not_known_is_left_out() -> None:
    card = model_card(replace(FACTS, metrics={}, conformal_levels=(), provenance={}))
    assert "Nothing was measured when it was made" in card
    assert "There are no conformal regions." in card
    assert "commit" not in card
    assert "None" not in card


def test_it_says_how_surely_callers_are_named() -> None:
    assert "tracks of two animals" not in model_card(FACTS)
    card = model_card(replace(FACTS, caller_error_rate=0.02))
    assert "the caller is named at an error rate of 0.02 or more." in card
