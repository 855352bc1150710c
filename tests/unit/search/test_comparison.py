from types import SimpleNamespace

import numpy as np
import pytest

from gerbil_tune.data.events import open_events
from gerbil_tune.errors import DatasetError
from gerbil_tune.evaluation.results import EvaluationResult, MethodResult
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.inference.predict import predict_with_bundle
from gerbil_tune.models.ensemble import mixture_moments, save_ensemble
from gerbil_tune.search.comparison import judge, predict_all

SETUP = RecordingSetup(4, 125_000.0, (572.0, 356.0))
NUM_EVENTS = 400


def evaluation(*errors_mm):
    """Single models with these errors (N, 1, 2), and their ensemble."""
    truth = np.random.default_rng(9).uniform(-150, 150, (NUM_EVENTS, 1, 2))
    covariance = np.broadcast_to(np.eye(2) * 200.0, (NUM_EVENTS, 1, 2, 2))
    singles = [
        MethodResult(f"trial {n}", truth + error, covariance) for n, error in enumerate(errors_mm)
    ]
    mixed = mixture_moments([s.predictions_mm_NKD for s in singles], [covariance] * len(singles))
    methods = (*singles, MethodResult(f"ensemble of {len(singles)}", *mixed))
    return EvaluationResult("d.h5", SETUP.arena_mm, ("nose",), truth, methods)


def noise(seed, spread=14.0):
    return np.random.default_rng(seed).normal(0, spread, (NUM_EVENTS, 1, 2))


def test_independent_errors_average_out_so_the_ensemble_wins():
    verdict = judge(evaluation(noise(1), noise(2), noise(3)), "error_median_mm", None)
    assert verdict.ensemble_wins
    assert verdict.sentences[-1] == (
        "the ensemble of 3 is better beyond chance, so it is the champion"
    )
    assert len(verdict.sentences) == 1 + 2 + 1 + 1


@pytest.mark.parametrize("figure", ["error_median_mm", "error_mean_mm", "error_p90_mm", "nll"])
def test_a_bad_member_spoils_the_ensemble_so_the_best_wins_alone(figure):
    verdict = judge(evaluation(noise(1) + 60.0, noise(2, 5.0)), figure, None)
    assert (verdict.winner, verdict.ensemble_wins) == ("trial 1", False)
    assert verdict.sentences[0] == f"trial 1 has the lowest {figure} of 2 refits"
    assert verdict.sentences[1].startswith("trial 1 minus trial 0 on 400 events")
    assert verdict.sentences[-1].endswith("so trial 1 alone is the champion")


def test_an_ensemble_that_is_only_as_good_is_not_worth_its_cost():
    verdict = judge(evaluation(noise(1), noise(1)), "error_median_mm", None)
    assert (verdict.winner, verdict.ensemble_wins) == ("trial 0", False)


def test_evidence_from_few_sources_is_no_evidence():
    """The ensemble is 10 mm better in five of eight groups and 10 mm worse in three."""
    groups = np.arange(NUM_EVENTS) % 8
    along_x = np.array([1.0, 0.0])
    one = np.full((NUM_EVENTS, 1, 1), 10.0) * along_x
    other = np.where(groups < 5, -10.0, 30.0)[:, None, None] * along_x
    assert judge(evaluation(one, other), "error_mean_mm", None).ensemble_wins
    by_group = judge(evaluation(one, other), "error_mean_mm", groups)
    assert "drawn by 8 groups" in by_group.sentences[1]
    assert not by_group.ensemble_wins


def test_the_ensemble_is_predicted_by_its_members(make_bundle, make_event_file, tmp_path):
    bundles = {f"trial {seed}": make_bundle(SETUP, seed=seed) for seed in (0, 1)}
    facts = {"metrics": {}, "provenance": {}}
    ensemble = save_ensemble(tmp_path, list(bundles.values()), covariance_scale=1.7, **facts)
    events = open_events(make_event_file(keypoints=("tail", "nose"), num_axes=3))
    found = predict_all(bundles, ensemble, events, SETUP, predict_with_bundle)
    assert [method.name for method in found.methods] == ["trial 0", "trial 1", "ensemble of 2"]
    np.testing.assert_array_equal(found.locations_mm_NKD, events.locations_mm[:, 1:, :2])
    mean, covariance = predict_with_bundle(ensemble, events)
    np.testing.assert_allclose(found.methods[-1].predictions_mm_NKD, mean, rtol=1e-5)
    np.testing.assert_allclose(found.methods[-1].covariance_mm2_NKDD, covariance, rtol=1e-5)


def test_events_without_locations_compare_nothing(make_event_file):
    events = open_events(make_event_file(locations=None))
    nothing = SimpleNamespace()
    with pytest.raises(DatasetError, match="has no locations"):
        predict_all({}, nothing, events, SETUP, nothing)
