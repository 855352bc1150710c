"""Whether machines could hold a group of workers."""

import pytest

from gerbil_tune.training.group_start import has_room

CPU, GPU = {"CPU": 1.0}, {"CPU": 2.0, "GPU": 1.0}


@pytest.mark.parametrize(
    ("nodes", "group", "expected"),
    [
        ([CPU, CPU], [CPU] * 2, True),
        ([CPU], [CPU] * 2, False),
        ([{"CPU": 2.5}], [CPU] * 2, True),
        ([{"CPU": 2.5}], [CPU] * 3, False),
        ([{"CPU": 1.5}, {"CPU": 1.5}], [CPU] * 3, False),  # no worker is on two machines
        ([{"CPU": 16.0, "GPU": 1.0}, {"CPU": 3.0, "GPU": 4.0}], [GPU] * 2, True),
        ([{"CPU": 16.0, "GPU": 1.0}, {"CPU": 3.0, "GPU": 4.0}], [GPU] * 3, False),
        ([{"CPU": 16.0}], [GPU], False),
        ([CPU], [{"CPU": 0.0}], True),
        ([], [CPU], False),
    ],
)
def test_room_for_a_group(nodes, group, expected):
    assert has_room(nodes, group) is expected
