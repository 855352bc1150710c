"""What fits into a cluster, and what is said of what does not."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gerbil_tune.config.study import PlacementConfig
from gerbil_tune.errors import LaunchError
from gerbil_tune.search.placement import Machine, plan_placement

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


def test_a_worker_is_on_one_machine() -> None:
    small = [{"CPU": 3.0}] * 3
    two = PlacementConfig(cpus_per_worker=2.0)
    assert plan_placement(small, two).max_concurrent == 3  # of nine CPUs, not four
    assert plan_placement(small, two, workers_per_trial=3).max_concurrent == 1
    # A trial's workers may be on several machines.
    assert plan_placement([{"CPU": 4.0}] * 4, AUTO, workers_per_trial=8).max_concurrent == 2


def test_a_gpu_counts_where_its_machine_has_the_cpus() -> None:
    cluster = [{"CPU": 1.0, "GPU": 4.0}, {"CPU": 64.0}, {"CPU": 6.0, "GPU": 2.0}]
    placement = plan_placement(cluster, AUTO)
    assert (placement.max_concurrent, placement.gpus_per_worker) == (1 + 2, 1.0)
    whole = PlacementConfig(gpus_per_worker=1.0, cpus_per_worker=4.0)
    assert plan_placement(cluster, whole).max_concurrent == 1
    shared = plan_placement(cluster, AUTO, training_bytes=1e9, gpu_bytes=80e9)
    assert shared.gpus_per_worker == pytest.approx(1 / 3)
    assert shared.max_concurrent == 1 + 6
    assert plan_placement(cluster, PlacementConfig(gpus_per_worker=0.0)).max_concurrent == 71


@given(
    st.lists(
        st.fixed_dictionaries({"CPU": st.integers(0, 9), "GPU": st.integers(0, 3)}),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([0.5, 1.0, 2.0, 3.0]),
    st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0]),
)
def test_what_is_planned_can_be_placed(
    machines: list[dict[str, int]], cpus: float, gpus: float
) -> None:
    """Greedily, worker by worker: what no order of the machines could hold is never promised."""
    free = [{name: float(have) for name, have in machine.items()} for machine in machines]
    config = PlacementConfig(cpus_per_worker=cpus, gpus_per_worker=gpus)
    placed = 0
    for machine in free:
        while machine["CPU"] >= cpus and machine["GPU"] >= gpus:
            machine["CPU"] -= cpus
            machine["GPU"] -= gpus
            placed += 1
    if placed:
        assert plan_placement(machines, config).max_concurrent == placed
    else:
        with pytest.raises(LaunchError, match="a worker needs"):
            plan_placement(machines, config)


def refusal(cluster: Machine | list[Machine], config: PlacementConfig, **options: Any) -> str:
    with pytest.raises(LaunchError) as told:
        plan_placement(cluster, config, **options)
    return str(told.value)


def test_what_cannot_fit_is_named() -> None:
    assert refusal({"CPU": 2.0}, AUTO, workers_per_trial=3) == (
        "a trial of 3 workers needs 1 CPU for each, but the cluster has room for 2 workers (it has 2 CPU); "
        "lower --workers-per-trial or study/placement"
    )
    assert refusal([{"CPU": 8.0, "GPU": 1.0}, {"CPU": 32.0}], AUTO, workers_per_trial=2) == (
        "a trial of 2 workers needs 1 CPU and 1 GPU for each, but the cluster has room for 1 worker (its "
        "largest machine has 8 CPU and 1 GPU); lower --workers-per-trial or study/placement"
    )
    assert refusal([{"CPU": 2.0}, {"CPU": 1.0}], AUTO, max_concurrent=5) == (
        "--max-concurrent 5 trials need 1 CPU for each worker, and the cluster has room for 3 (its largest "
        "machine has 2 CPU); lower it, or leave it out"
    )
    assert "about 90.0 GB of GPU memory, but the GPUs have 80.0 GB" in refusal(
        {"CPU": 8.0, "GPU": 1.0}, AUTO, training_bytes=90e9, gpu_bytes=80e9
    )


def test_what_fits_no_single_machine_is_named() -> None:
    assert refusal([{"CPU": 8.0}] * 4, PlacementConfig(cpus_per_worker=16.0)) == (
        "a worker needs 16 CPU of one machine, but the largest machine has 8; lower "
        "study/placement/cpus_per_worker"
    )
    two_gpus = PlacementConfig(gpus_per_worker=2.0)
    assert refusal([{"CPU": 8.0, "GPU": 1.0}] * 4, two_gpus) == (
        "a worker needs 2 GPU of one machine, but the largest machine has 1; lower "
        "study/placement/gpus_per_worker"
    )
    assert refusal(
        [{"CPU": 32.0}, {"CPU": 1.0, "GPU": 4.0}], PlacementConfig(cpus_per_worker=2.0)
    ) == (
        "a worker needs 2 CPU and 1 GPU of one machine, but no machine has both (its largest machine has "
        "1 CPU and 4 GPU); lower study/placement"
    )


def test_workers_of_a_trial_cannot_share_a_gpu() -> None:
    half = PlacementConfig(gpus_per_worker=0.5)
    with pytest.raises(LaunchError, match="cannot share a GPU"):
        plan_placement({"CPU": 8.0, "GPU": 4.0}, half, workers_per_trial=2)


def test_it_is_described() -> None:
    placement = plan_placement({"CPU": 8.0, "GPU": 2.0}, AUTO, workers_per_trial=2)
    assert placement.describe() == "1 at a time, 2 workers each (1 CPU and 1 GPU a worker)"
