import pytest
import ray

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.errors import LaunchError
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.search import refit
from gerbil_tune.search.refit import Refit, refit_workers, train_on_cluster
from gerbil_tune.training.job import TrainingJob


@pytest.mark.parametrize(
    ("batch", "cluster", "use_gpu", "workers"),
    [
        (64, {"CPU": 2.0}, False, 2),
        (64, {"CPU": 16.0}, False, 8),  # 8 events for each
        (16, {"CPU": 2.0}, False, 2),
        (60, {"CPU": 16.0}, False, 6),
        (8, {"CPU": 16.0}, False, 1),
        (7, {"CPU": 2.0}, False, 1),
        (64, {"CPU": 16.0, "GPU": 1.0}, True, 1),
        (64, {"CPU": 16.0, "GPU": 2.0}, True, (1, 2)),
        (60, {"CPU": 16.0, "GPU": 6.0}, True, (1, 6)),
        (64, {"CPU": 16.0, "GPU": 4.0}, True, 4),  # three could not share 64
        (60, {"CPU": 16.0, "GPU": 7.0}, True, (1, 6)),
        (72, {"CPU": 16.0, "GPU": 9.0}, True, (8, 9)),
        (16, {"CPU": 2.0, "GPU": 0.5}, True, 1),
    ],
)
def test_workers_share_the_batch_evenly(batch, cluster, use_gpu, workers):
    assert refit_workers(batch, cluster, use_gpu=use_gpu) == workers
    for number in [workers] if isinstance(workers, int) else range(workers[0], workers[1] + 1):
        assert batch % number == 0


def test_a_refit_is_stored_and_read(tmp_path):
    for bundle, reason in ((tmp_path / "b", ""), (None, "it diverged")):
        refit = Refit(3, 20, tmp_path / "run", bundle, reason)
        assert Refit.from_json(refit.to_json()) == refit


@pytest.mark.parametrize(("left", "asked"), [(2.0, [4, 2]), (4.0, [4]), (8.0, [4])])
def test_it_goes_on_with_fewer_workers_where_a_machine_was_lost(monkeypatch, tmp_path, left, asked):
    """Of the cluster only its size matters here; tests/slurm and tests/faults lose real machines."""
    sizes = iter([4.0, left, left])
    config = ExperimentConfig.model_validate({"training": {"global_batch_size": 64}})
    job = TrainingJob(config, RecordingSetup(4, 125_000.0, (572.0, 356.0)), None, tmp_path)
    begun = []

    def train(job, *, num_workers, **_):
        begun.append(num_workers)
        if len(begun) == 1:
            raise LaunchError("the worker group failed")

    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": next(sizes)})
    monkeypatch.setattr(refit, "train_with_workers", train)
    if len(asked) == 1:
        with pytest.raises(LaunchError):
            train_on_cluster(job, False, print)
    else:
        assert train_on_cluster(job, False, print) == asked[-1]
    assert begun == asked
