"""The arithmetic of a pool; tests/integration runs one."""

import pytest

from gerbil_tune.errors import LaunchError
from gerbil_tune.inference.pool import plan_workers


@pytest.mark.parametrize(
    ("cluster", "workers", "num_tasks", "expected", "share"),
    [
        ({"CPU": 8.0}, None, 100, 8, 0.0),
        ({"CPU": 8.0}, 3, 100, 3, 0.0),
        ({"CPU": 8.0}, None, 2, 2, 0.0),
        ({"CPU": 8.0, "GPU": 2.0}, None, 100, 2, 1.0),
        ({"CPU": 8.0, "GPU": 2.0}, 1, 100, 1, 1.0),
        ({"CPU": 8.0, "GPU": 2.0}, 4, 100, 4, 0.5),
        # 3/2 GPUs each would let only one worker on each GPU, and the third would wait for ever.
        ({"CPU": 8.0, "GPU": 2.0}, 3, 100, 3, 0.5),
    ],
)
def test_workers_fit_the_cluster(cluster, workers, num_tasks, expected, share):
    resources = {"num_cpus": 1, "num_gpus": share}
    assert plan_workers(cluster, workers, num_tasks) == (expected, resources)


@pytest.mark.parametrize(("cluster", "workers"), [({"CPU": 2.0}, 3), ({}, None)])
def test_more_workers_than_cpus_is_one_sentence(cluster, workers):
    with pytest.raises(LaunchError, match="ask for at most"):
        plan_workers(cluster, workers, 100)
