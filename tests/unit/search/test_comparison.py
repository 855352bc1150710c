from types import SimpleNamespace

import numpy as np
import pytest

from gerbil_tune.data.events import open_events
from gerbil_tune.errors import DatasetError
from gerbil_tune.evaluation.calibration import gaussian_density
from gerbil_tune.evaluation.predictions import describe
from gerbil_tune.evaluation.results import EvaluationResult, MethodResult
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.inference.predict import predict_with_bundle
from gerbil_tune.models.calibrated import Calibration
from gerbil_tune.models.density import LocationDensity
from gerbil_tune.models.ensemble import save_ensemble
from gerbil_tune.search.comparison import judge, predict_all
from tests.unit.evaluation.methods import gaussian_method

SETUP = RecordingSetup(4, 125_000.0, (572.0, 356.0))
NUM_EVENTS = 400


def evaluation(*errors_mm):
    """Single models with these errors (N, 1, 2), and their ensemble."""
    truth = np.random.default_rng(9).uniform(-150, 150, (NUM_EVENTS, 1, 2))
    covariance = np.broadcast_to(np.eye(2) * 200.0, (NUM_EVENTS, 1, 2, 2))
    singles = [
        gaussian_method(f"trial {n}", truth + error, covariance, truth)
        for n, error in enumerate(errors_mm)
    ]
    densities = [gaussian_density(truth + error, np.array(covariance)) for error in errors_mm]
    mixture = describe(LocationDensity.mixture_of(densities), Calibration(), SETUP, truth)
    methods = (*singles, MethodResult.of_model(f"ensemble of {len(singles)}", mixture))
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


def test_members_and_ensemble_are_predicted(make_bundle, make_event_file, tmp_path):
    bundles = {f"trial {seed}": make_bundle(SETUP, seed=seed) for seed in (0, 1)}
    facts = {"metrics": {}, "provenance": {}}
    ensemble = save_ensemble(
        tmp_path, list(bundles.values()), calibration=Calibration(1.7), **facts
    )
    events = open_events(make_event_file(keypoints=("tail", "nose"), num_axes=3))
    found = predict_all(bundles, ensemble, events, SETUP, predict_with_bundle)
    assert [method.name for method in found.methods] == ["trial 0", "trial 1", "ensemble of 2"]
    np.testing.assert_array_equal(found.locations_mm_NKD, events.locations_mm[:, 1:, :2])
    expected = predict_with_bundle(ensemble, events)
    together = found.methods[-1]
    np.testing.assert_array_equal(together.predictions_mm_NKD, expected.mean_mm_NKD)
    np.testing.assert_array_equal(together.covariance_mm2_NKDD, expected.covariance_mm2_NKDD)


def test_events_without_locations_compare_nothing(make_event_file):
    events = open_events(make_event_file(locations=None))
    nothing = SimpleNamespace()
    with pytest.raises(DatasetError, match="has no locations"):
        predict_all({}, nothing, events, SETUP, nothing)
