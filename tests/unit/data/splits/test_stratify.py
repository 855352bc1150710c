"""Parts are disjoint, whole, of the size that groups allow, and lie over the arena as all events do."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gerbil_tune.data.splits.stratify import (
    ArenaCells,
    find_cells,
    part_sizes,
    split_events,
    total_variation,
)
from gerbil_tune.errors import DatasetError

ARENA_MM = (572.0, 356.0)
TOLERANCE = 0.05


def closest(sizes, wanted):
    """How close the sum of some of the numbers, at least one, comes to what is wanted."""
    sums = {0}
    for size in sizes:
        sums |= {total + size for total in sums}
    return min(abs(total - wanted) for total in sums - {0})


def random_cells(num_events, num_cells, seed):
    numbers = np.random.default_rng(seed).integers(0, num_cells, num_events)
    return ArenaCells(numbers, (1, num_cells))


@settings(max_examples=150, deadline=None)
@example(num_events=4, fraction=0.49, test_fraction=None, seed=0, num_held_out=2, num_cells=None)
@given(
    st.integers(3, 400),
    st.floats(0.01, 0.49),
    st.none() | st.floats(0.01, 0.49),
    st.integers(-10, 10**6),
    st.integers(1, 2),
    st.none() | st.integers(1, 30),
)
def test_a_split_by_event_has_the_sizes_asked_for(
    num_events, fraction, test_fraction, seed, num_held_out, num_cells
):
    cells = None if num_cells is None else random_cells(num_events, num_cells, seed=0)
    options = {
        **{"groups": None, "fraction": fraction, "test_fraction": test_fraction, "cells": cells},
        **{"seed": seed, "num_held_out": num_held_out},
    }
    parts = split_events(num_events, **options)
    assert sorted(np.concatenate(parts).tolist()) == list(range(num_events))
    fractions = [fraction, fraction if test_fraction is None else test_fraction][:num_held_out]
    wanted = [max(1, round(share * num_events)) for share in fractions]
    sizes = [len(part) for part in parts[1:]]
    if sum(wanted) < num_events:
        assert sizes == wanted
    assert all(1 <= size <= most for size, most in zip(sizes, wanted, strict=True))
    assert len(parts[0]) >= 1
    assert all((np.diff(part) > 0).all() for part in parts)
    again = split_events(num_events, **options)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(-3, 12), min_size=3, max_size=300).filter(lambda x: len(set(x)) >= 3),
    st.floats(0.01, 0.49),
    st.integers(0, 10**6),
    st.none() | st.integers(1, 20),
)
def test_a_split_by_group_divides_no_group_and_comes_close_to_its_size(
    groups, fraction, seed, num_cells
):
    cells = None if num_cells is None else random_cells(len(groups), num_cells, seed=1)
    groups = np.array(groups)
    options = {"groups": groups, "fraction": fraction, "seed": seed, "cells": cells}
    parts = split_events(len(groups), **options)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(groups)))
    assert all(len(part) for part in parts)
    names = [set(groups[part].tolist()) for part in parts]
    assert not names[0] & names[1]
    assert not names[0] & names[2]
    assert not names[1] & names[2]
    sizes = {name: int((groups == name).sum()) for name in set(groups.tolist())}
    wanted = part_sizes(np.array(list(sizes.values())), [fraction, fraction])
    for part, held_out, size in zip(parts[1:], names[1:], wanted, strict=True):
        best = closest(sizes.values(), size)
        assert abs(len(part) - size) <= max(best, TOLERANCE * size)
        sizes = {name: number for name, number in sizes.items() if name not in held_out}
    again = split_events(len(groups), **options)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


@pytest.mark.parametrize("draw", ["small", "mixed", "heavy"])
def test_of_many_groups_a_part_has_the_size_asked_for(draw):
    generator = np.random.default_rng(0)
    sizes = {
        "small": generator.integers(1, 9, 3000),
        "mixed": np.concatenate([generator.integers(1, 4, 2000), [3000, 2500, 900, 800]]),
        "heavy": (generator.pareto(1.1, 2000) * 3 + 1).astype(int),
    }[draw]
    groups = np.repeat(np.arange(len(sizes)), sizes)
    cells = random_cells(len(groups), 16, seed=1)
    parts = split_events(len(groups), groups=groups, fraction=0.1, seed=3, cells=cells)
    wanted = round(0.1 * len(groups))
    assert all(abs(len(part) - wanted) <= TOLERANCE * wanted for part in parts[1:])
    exact = split_events(len(groups), groups=groups, fraction=0.1, seed=3)
    assert [len(part) for part in exact[1:]] == [wanted, wanted]


def test_held_out_parts_share_what_a_huge_group_leaves():
    groups = np.repeat(np.arange(5), [1000, 10, 10, 10, 10])
    parts = split_events(1040, groups=groups, fraction=0.1, seed=0)
    assert [len(part) for part in parts] == [1000, 20, 20]


def test_greedy_packing_is_not_enough():
    """First fit in any order takes 7 + 3 or less of these; 5 + 5 + 5 is what was asked for."""
    groups = np.repeat(np.arange(7), [7, 7, 5, 5, 5, 100, 21])
    parts = split_events(150, groups=groups, fraction=0.1, seed=0)
    assert [len(part) for part in parts[1:]] == [15, 14]


@settings(max_examples=60, deadline=None)
@given(st.integers(20, 500), st.integers(1, 12), st.integers(0, 99))
def test_each_cell_gives_its_share(num_events, num_cells, seed):
    cells = random_cells(num_events, num_cells, seed)
    for seed_of_split in (0, 1):
        parts = split_events(num_events, groups=None, fraction=0.2, seed=seed_of_split, cells=cells)
        of_all = np.bincount(cells.numbers, minlength=num_cells)
        of_part = np.bincount(cells.numbers[parts[1]], minlength=num_cells)
        assert np.abs(of_part - len(parts[1]) * of_all / num_events).max() < 1


def test_groups_are_chosen_alike_over_the_arena():
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(200), generator.integers(1, 20, 200))
    centres = generator.uniform([-280, -170], [280, 170], (200, 2))
    locations = centres[groups] + generator.normal(0, 30, (len(groups), 2))
    cells = find_cells(locations, ARENA_MM, len(groups) // 10)
    whole = np.arange(len(groups))

    def distance(cells_used, seed):
        parts = split_events(len(groups), groups=groups, fraction=0.1, seed=seed, cells=cells_used)
        return np.mean([total_variation(cells, part, whole) for part in parts[1:]])

    stratified = [distance(cells, seed) for seed in range(3)]
    at_random = [distance(None, seed) for seed in range(3)]
    assert max(stratified) < 0.5 * min(at_random)


def test_seeds_differ():
    first, second = (
        split_events(100, groups=None, fraction=0.1, seed=seed)[1].tolist() for seed in (0, 1)
    )
    assert first != second


@pytest.mark.parametrize(
    ("groups", "num_held_out", "message"),
    [
        (None, 2, "x.h5: has 2 events, but a split needs at least 3"),
        ([4, 4], 1, "x.h5: has 1 group, but a split needs at least 2"),
    ],
)
def test_too_little_to_split(groups, num_held_out, message):
    groups = None if groups is None else np.array(groups)
    with pytest.raises(DatasetError, match=message):
        split_events(
            2, groups=groups, fraction=0.1, seed=0, num_held_out=num_held_out, source="x.h5"
        )


def test_cells_lie_as_on_a_map():
    locations = [[-280, -170], [-280, 170], [280, -170], [280, 170], [9e9, 9e9], [np.nan, 0]]
    cells = find_cells(np.array(locations), ARENA_MM, smallest_part=8)
    assert cells.grid == (2, 2)
    assert cells.num_cells == 5
    assert cells.numbers.tolist() == [0, 1, 2, 3, 3, 4]
    without_arena = find_cells(np.array(locations[:4]), None, smallest_part=8)
    assert without_arena.numbers.tolist() == [0, 1, 2, 3]
    assert find_cells(np.zeros((9, 3)), None, smallest_part=8).numbers.tolist() == [0] * 9


@pytest.mark.parametrize(("smallest", "side"), [(1, 1), (4, 1), (8, 2), (50, 5), (10**6, 8)])
def test_the_grid_is_as_fine_as_the_smallest_part_allows(smallest, side):
    cells = find_cells(np.zeros((3, 2)), ARENA_MM, smallest)
    assert cells.grid == (side, side)


def test_total_variation_of_known_parts():
    cells = ArenaCells(np.array([0, 0, 1, 1]), (1, 2))
    whole = np.arange(4)
    assert total_variation(cells, whole, whole) == 0
    assert total_variation(cells, np.array([0, 2]), whole) == 0
    assert total_variation(cells, np.array([0, 1]), whole) == 0.5
    assert total_variation(cells, np.array([0, 1, 2]), whole) == pytest.approx(1 / 6)
