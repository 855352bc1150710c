import pytest

from gerbil_tune.search.refit import Refit, refit_workers


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
