import itertools

from gerbil_tune.config.load import compose
from gerbil_tune.config.space import SpaceFile
from gerbil_tune.search.grid import decode, grid_point, num_points

SPACE = SpaceFile.model_validate(
    {
        "name": "s",
        "study": {"sampler": {"kind": "grid", "grid_points": 3, "seed": 4}},
        "parameters": {
            "optimizer/learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
            "model/kind": {
                "type": "branch",
                "branches": {
                    "gcc-net": {
                        "model/lags/hidden": {"type": "int", "low": 8, "high": 32},
                        "features/gcc/envelope": {"type": "categorical", "choices": [False, True]},
                    },
                    "densenet": {"model/growth": {"type": "int", "low": 4, "high": 5}},
                    "simplenet": {},
                },
            },
        },
    }
)


def key(point):
    return tuple(sorted(point.items()))


def test_the_number_of_points_is_known_beforehand():
    assert num_points(SPACE) == 3 * (3 * 2 + 2 + 1)


def test_every_combination_comes_once():
    found = {key(grid_point(SPACE, index)) for index in range(num_points(SPACE))}
    rates = grid_values("optimizer/learning_rate")
    gcc_net = [
        {"model/kind": "gcc-net", "model/lags/hidden": hidden, "features/gcc/envelope": envelope}
        for hidden, envelope in itertools.product((8, 20, 32), (False, True))
    ]
    densenet = [{"model/kind": "densenet", "model/growth": growth} for growth in (4, 5)]
    models = [*gcc_net, *densenet, {"model/kind": "simplenet"}]
    expected = {
        key({"optimizer/learning_rate": rate, **model})
        for rate, model in itertools.product(rates, models)
    }
    assert found == expected
    for point in expected:
        compose({}, dict(point), "point")


def grid_values(path):
    return SPACE.parameters[path].grid(3)


def test_the_first_of_few_are_spread_over_the_space():
    first = [grid_point(SPACE, index) for index in range(9)]
    assert len({point["optimizer/learning_rate"] for point in first}) == 3
    assert len({point["model/kind"] for point in first}) == 3


def test_the_order_depends_on_the_seed_alone():
    other = SPACE.model_copy(
        update={"study": SPACE.study.model_copy(update={"sampler": sampler(seed=5)})}
    )
    points = [key(grid_point(SPACE, index)) for index in range(27)]
    assert points == [key(grid_point(SPACE, index)) for index in range(27)]
    assert points != [key(grid_point(other, index)) for index in range(27)]


def sampler(**changes):
    return SPACE.study.sampler.model_copy(update=changes)


def test_numbers_are_read_in_order():
    decoded = [decode(SPACE.parameters, number, 3) for number in range(num_points(SPACE))]
    assert len({key(point) for point in decoded}) == 27
