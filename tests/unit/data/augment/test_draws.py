import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gerbil_tune.data.augment.draws import Draw, EventDraws

NUM_EVENTS = 300
EVERYTHING = np.arange(NUM_EVENTS)


def make_draws(seed=0, num_events=NUM_EVENTS, num_microphones=5):
    return EventDraws(num_events, num_microphones, seed=seed)


@settings(deadline=None)
@given(
    st.permutations(range(40)),
    st.integers(1, 40),
    st.integers(-(2**31), 2**40),
    st.lists(st.integers(0, 3), min_size=1, max_size=4),
)
def test_a_draw_belongs_to_its_event(order, number, seed, epochs):
    """Whatever was asked for before: other events, another order, other epochs."""
    draws, fresh = make_draws(seed, 40), make_draws(seed, 40)
    places = np.array(order[:number])
    for epoch in epochs:
        found = draws.uniform(Draw.NOISE, epoch, places)
        np.testing.assert_array_equal(
            found, make_draws(seed, 40).uniform(Draw.NOISE, epoch, EVERYTHING[:40])[places]
        )
    np.testing.assert_array_equal(found, fresh.uniform(Draw.NOISE, epochs[-1], places))


def test_streams_epochs_and_seeds_differ():
    drawn = [
        make_draws(seed).uniform(draw, epoch, EVERYTHING)
        for seed in (0, 1, -1)
        for epoch in (0, 1)
        for draw in (Draw.POLARITY, Draw.NOISE, Draw.NOISE_SNR, Draw.MASK)
    ]
    correlation = np.corrcoef(np.array(drawn)) - np.eye(len(drawn))
    assert np.abs(correlation).max() < 5 / np.sqrt(NUM_EVENTS)


def test_streams_are_not_those_of_order_and_crops():
    assert len({*Draw}) == len(Draw.__members__)
    assert min(Draw) >= 16


def test_what_is_drawn():
    draws = make_draws()
    uniform = draws.uniform(Draw.NOISE_SNR, 0, EVERYTHING)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    within = draws.between(Draw.NOISE_SNR, (3.0, 15.0), 0, EVERYTHING)
    np.testing.assert_allclose(within, 3 + 12 * uniform)
    gains = draws.by_microphone(Draw.GAIN_DB, 0, EVERYTHING[:7])
    assert gains.shape == (7, 5)
    assert len(np.unique(gains)) == 35
    seeds = draws.seeds(Draw.NOISE_SEED, 0, EVERYTHING)
    assert len(set(seeds)) == NUM_EVENTS
    assert all(type(seed) is int and 0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("probability", [0.0, 0.2, 0.7, 1.0])
def test_a_probability_is_that_of_each_event(probability):
    number = 20_000
    chosen = make_draws(num_events=number).chosen(Draw.MASK, probability, 3, np.arange(number))
    bound = 4.5 * np.sqrt(probability * (1 - probability) / number)
    assert abs(chosen.mean() - probability) <= bound


def test_the_axes_of_mirroring_are_independent():
    mirrored = make_draws(num_events=20_000).mirrored(0.3, 0, np.arange(20_000))
    assert mirrored.mean(0) == pytest.approx([0.3, 0.3], abs=0.015)
    assert mirrored.all(1).mean() == pytest.approx(0.09, abs=0.01)
