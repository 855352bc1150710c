import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gerbil_tune.data.shards import (
    crop_fractions,
    evaluation_shard,
    steps_per_epoch,
    training_schedule,
)
from gerbil_tune.errors import ConfigError, DatasetError

worlds = st.integers(1, 9)
ranks = st.integers(1, 8)
seeds = st.integers(-(2**31), 2**31)


def schedules(num_events, *, world_size, global_batch_size, seed=0, epoch=0):
    return [
        training_schedule(
            num_events,
            epoch=epoch,
            seed=seed,
            global_batch_size=global_batch_size,
            world_size=world_size,
            rank=rank,
        )
        for rank in range(world_size)
    ]


@given(worlds, worlds, st.integers(1, 3), st.integers(0, 400), seeds, st.integers(0, 50))
def test_the_global_order_is_the_same_for_any_world_size(one, other, factor, extra, seed, epoch):
    in_step = one * other * factor
    num_events = in_step + extra
    orders = []
    for world_size in (1, one, other):
        parts = schedules(
            num_events, world_size=world_size, global_batch_size=in_step, seed=seed, epoch=epoch
        )
        assert len({part.shape for part in parts}) == 1
        assert parts[0].dtype == np.int64
        orders.append(np.concatenate(parts, axis=1))
    np.testing.assert_array_equal(orders[0], orders[1])
    np.testing.assert_array_equal(orders[0], orders[2])
    assert orders[0].shape == (num_events // in_step, in_step)
    assert len(np.unique(orders[0])) == orders[0].size


@given(worlds, st.integers(1, 20), st.integers(0, 300))
def test_few_events_still_give_one_step(world_size, per_worker, num_events):
    in_step = world_size * per_worker
    if num_events < world_size:
        with pytest.raises(DatasetError, match=f"{num_events} training events for {world_size}"):
            steps_per_epoch(num_events, global_batch_size=in_step, world_size=world_size)
        return
    parts = schedules(num_events, world_size=world_size, global_batch_size=in_step)
    used = np.concatenate([part.ravel() for part in parts])
    assert len(np.unique(used)) == len(used)
    assert num_events - len(used) < min(in_step, num_events + 1)
    if num_events < in_step:
        assert len(used) == num_events // world_size * world_size
    assert (len(parts[0]), used.size // len(parts[0])) == steps_per_epoch(
        num_events, global_batch_size=in_step, world_size=world_size
    )


@given(ranks, st.integers(1, 100), st.integers(0, 500), seeds, st.integers(0, 20))
def test_ranks_are_disjoint_and_take_equal_steps(world_size, batch, num_events, seed, epoch):
    """For any batch size that can be shared out; any other is refused."""
    place = {"world_size": world_size, "global_batch_size": batch, "seed": seed, "epoch": epoch}
    if batch % world_size:
        with pytest.raises(ConfigError, match="multiple"):
            schedules(num_events, **place)
        return
    if num_events < world_size:
        with pytest.raises(DatasetError):
            schedules(num_events, **place)
        return
    parts = schedules(num_events, **place)
    assert len({part.shape for part in parts}) == 1
    steps, in_step = steps_per_epoch(num_events, global_batch_size=batch, world_size=world_size)
    assert parts[0].shape == (steps, in_step // world_size)
    used = np.concatenate([part.ravel() for part in parts])
    assert len(np.unique(used)) == len(used) == steps * in_step
    assert used.min() >= 0
    assert used.max() < num_events
    assert num_events - len(used) < in_step


@given(st.integers(1, 20), st.integers(4, 400), seeds, st.integers(0, 20))
def test_one_two_and_four_workers_follow_one_order(factor, num_events, seed, epoch):
    """Also where there are fewer events than a step has, unless they cannot be shared out evenly."""
    batch = 4 * factor
    num_events = num_events if num_events >= batch else num_events // 4 * 4
    orders = [
        np.concatenate(
            schedules(
                num_events, world_size=number, global_batch_size=batch, seed=seed, epoch=epoch
            ),
            axis=1,
        )
        for number in (1, 2, 4)
    ]
    np.testing.assert_array_equal(orders[0], orders[1])
    np.testing.assert_array_equal(orders[0], orders[2])


def test_seed_and_epoch_change_the_order_and_the_crops():
    variants = [(0, 0), (1, 0), (0, 1), (-1, 0)]
    orders = {
        tuple(schedules(50, world_size=1, global_batch_size=50, seed=seed, epoch=epoch)[0][0])
        for seed, epoch in variants
    }
    crops = {tuple(crop_fractions(50, epoch=epoch, seed=seed)) for seed, epoch in variants}
    assert len(orders) == len(crops) == len(variants)
    again = schedules(50, world_size=1, global_batch_size=50, seed=0, epoch=0)[0][0]
    assert tuple(again) in orders


def test_a_batch_that_cannot_be_shared_out():
    with pytest.raises(ConfigError, match="multiple of the 4 workers; use 8"):
        steps_per_epoch(100, global_batch_size=10, world_size=4)
    with pytest.raises(ConfigError, match="multiple of the 4 workers; use 4"):
        steps_per_epoch(100, global_batch_size=2, world_size=4)
    with pytest.raises(ConfigError, match="rank is 4"):
        evaluation_shard(10, world_size=4, rank=4)


@given(st.integers(0, 500), worlds)
def test_evaluation_takes_each_event_once(num_events, world_size):
    parts = [evaluation_shard(num_events, world_size=world_size, rank=r) for r in range(world_size)]
    assert sorted(np.concatenate(parts).tolist()) == list(range(num_events))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
