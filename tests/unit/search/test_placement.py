"""What fits into a cluster, and what is said of what does not."""

import pytest

from gerbil_tune.config.study import PlacementConfig
from gerbil_tune.errors import LaunchError
from gerbil_tune.search.placement import plan_placement

AUTO = PlacementConfig()


def test_cpus_alone() -> None:
    placement = plan_placement({"CPU": 8.0}, AUTO)
    assert (placement.max_concurrent, placement.use_gpu) == (8, False)
    assert plan_placement({"CPU": 8.0}, AUTO, workers_per_trial=3).max_concurrent == 2
    two = PlacementConfig(cpus_per_worker=2.0)
    assert plan_placement({"CPU": 8.0}, two).max_concurrent == 4


def test_a_gpu_each_where_nothing_is_known_of_memory() -> None:
    placement = plan_placement({"CPU": 64.0, "GPU": 4.0}, AUTO)
    assert (placement.max_concurrent, placement.gpus_per_worker) == (4, 1.0)
    placement = plan_placement({"CPU": 64.0, "GPU": 4.0}, AUTO, workers_per_trial=2)
    assert (placement.max_concurrent, placement.gpus_per_worker) == (2, 1.0)


def test_several_trials_share_a_gpu_by_their_memory() -> None:
    cluster = {"CPU": 64.0, "GPU": 2.0}
    # 80 GB x 0.9 hold 5 trials of 12 GB with 1.5 GB around each.
    placement = plan_placement(cluster, AUTO, training_bytes=12e9, gpu_bytes=80e9)
    assert placement.gpus_per_worker == pytest.approx(1 / 5)
    assert placement.max_concurrent == 10
    small = plan_placement(cluster, AUTO, training_bytes=0.5e9, gpu_bytes=80e9)
    assert small.max_concurrent == 16  # at most eight a GPU
    few_cpus = plan_placement({"CPU": 6.0, "GPU": 2.0}, AUTO, training_bytes=12e9, gpu_bytes=80e9)
    assert few_cpus.max_concurrent == 6


def test_a_given_share() -> None:
    third = PlacementConfig(gpus_per_worker=0.3)
    assert plan_placement({"CPU": 32.0, "GPU": 2.0}, third).max_concurrent == 6
    none = PlacementConfig(gpus_per_worker=0.0)
    assert plan_placement({"CPU": 4.0, "GPU": 2.0}, none).use_gpu is False


@pytest.mark.parametrize(
    ("cluster", "options", "message"),
    [
        ({"CPU": 2.0}, {"workers_per_trial": 3}, r"needs 3 CPU, but the cluster has 2;"),
        (
            {"CPU": 8.0, "GPU": 1.0},
            {"workers_per_trial": 2},
            r"needs 2 GPU, but the cluster has 1;",
        ),
        ({"CPU": 2.0}, {"max_concurrent": 5}, r"--max-concurrent 5 .* enough for 2;"),
        (
            {"CPU": 8.0, "GPU": 1.0},
            {"training_bytes": 90e9, "gpu_bytes": 80e9},
            r"about 90.0 GB of GPU memory, but the GPUs have 80.0 GB",
        ),
    ],
)
def test_what_cannot_fit_is_named(
    cluster: dict[str, float], options: dict[str, float], message: str
) -> None:
    with pytest.raises(LaunchError, match=message):
        plan_placement(cluster, AUTO, **options)


def test_workers_of_a_trial_cannot_share_a_gpu() -> None:
    half = PlacementConfig(gpus_per_worker=0.5)
    with pytest.raises(LaunchError, match="cannot share a GPU"):
        plan_placement({"CPU": 8.0, "GPU": 4.0}, half, workers_per_trial=2)


def test_it_is_described() -> None:
    placement = plan_placement({"CPU": 8.0, "GPU": 2.0}, AUTO, workers_per_trial=2)
    assert placement.describe() == "1 at a time, 2 workers each (1 CPU and 1 GPU a worker)"
