import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gerbil_tune.errors import ConfigError
from gerbil_tune.units import SPEED_OF_SOUND_M_S, distance_to_delay_s, to_mm

lengths = st.floats(-1e6, 1e6)


@pytest.mark.parametrize(
    ("value", "unit", "mm"), [(1, "mm", 1), (36.6, "cm", 366), (0.572, "m", 572), (2, "CM", 20)]
)
def test_lengths_become_millimetres(value, unit, mm):
    assert to_mm(value, unit) == pytest.approx(mm, rel=1e-12)


@pytest.mark.parametrize("unit", ["inch", "", "mm ", "µm"])
def test_an_unknown_unit_is_refused_with_the_valid_ones(unit):
    with pytest.raises(ConfigError) as error:
        to_mm(1.0, unit)
    assert str(error.value) == f"length unit {unit!r} is unknown; valid: mm, cm, m"


@given(lengths)
def test_the_same_length_in_any_unit(length_m):
    assert to_mm(length_m, "m") == pytest.approx(to_mm(length_m * 100, "cm"), rel=1e-12)
    assert to_mm(length_m, "m") == pytest.approx(to_mm(length_m * 1000, "mm"), rel=1e-12)


def test_sound_takes_a_second_for_its_speed_in_metres():
    assert distance_to_delay_s(SPEED_OF_SOUND_M_S * 1000) == pytest.approx(1.0)


def test_the_diagonal_of_the_gerbil_arena_is_two_milliseconds():
    assert distance_to_delay_s(math.hypot(572, 366)) == pytest.approx(1.979e-3, rel=1e-3)


@given(lengths, lengths)
def test_delays_add_like_distances(one, other):
    delay = distance_to_delay_s(one) + distance_to_delay_s(other)
    assert delay == pytest.approx(distance_to_delay_s(one + other), abs=1e-9)
