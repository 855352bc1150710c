"""Events in memory: padded, ragged, and those that do not fit."""

import numpy as np
import pytest

from gerbil_tune.errors import DatasetError
from gerbil_tune.inference.arrays import predict_arrays
from gerbil_tune.models.bundle import load_bundle

RNG = np.random.default_rng(0)
EVENTS = [RNG.normal(0.0, 0.1, (length, 4)).astype(np.float32) for length in (900, 30, 2500)]
PADDED = np.zeros((3, 2600, 4), np.float32)
for row, sound in zip(PADDED, EVENTS, strict=True):
    row[: len(sound)] = sound


@pytest.fixture(scope="module")
def bundle(make_bundle):
    return load_bundle(make_bundle())


@pytest.mark.parametrize(
    "given",
    [
        {"audio": EVENTS},
        {"audio": tuple(event.tolist() for event in EVENTS)},
        {"audio": PADDED, "lengths_B": [900, 30, 2500]},
        {"audio": PADDED, "lengths_B": []},
        {"audio": PADDED.astype(np.float64), "sample_rate_hz": 125_000},
    ],
)
def test_all_forms_give_the_same(bundle, given):
    expected, received = predict_arrays(bundle, PADDED), predict_arrays(bundle, **given)
    np.testing.assert_allclose(received.mean_mm_NKD, expected.mean_mm_NKD, atol=1e-3)


def test_stated_lengths_keep_silence_at_an_end(bundle):
    shorter = predict_arrays(bundle, PADDED[:1], lengths_B=[900])
    longer = predict_arrays(bundle, PADDED[:1], lengths_B=[2600])
    assert not np.allclose(shorter.mean_mm_NKD, longer.mean_mm_NKD, atol=1e-3)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {"audio": [EVENTS[0], EVENTS[1][:, :3]]},
            r"event 1 has the shape \(30, 3\), .* \(samples, 4\)",
        ),
        ({"audio": EVENTS[0]}, r"event 0 has the shape \(4,\)"),
        ({"audio": []}, "no event"),
        ({"audio": PADDED, "lengths_B": [1, 2]}, "lengths has 2 numbers, but there are 3 events"),
        (
            {"audio": PADDED, "lengths_B": [1, 2, 2601]},
            r"lengths\[2\] is 2601, but event 2 has 2600",
        ),
        ({"audio": PADDED, "lengths_B": [1, -2, 3]}, r"lengths\[1\] is -2"),
        ({"audio": PADDED, "sample_rate_hz": 250_000}, "is 250000, but the model is for 125000"),
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(bundle, given, says):
    with pytest.raises(DatasetError, match=says):
        predict_arrays(bundle, **given)
