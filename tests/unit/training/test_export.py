import json

import numpy as np
import pytest
import torch

from gerbil_tune import __version__
from gerbil_tune.evaluation.calibration import mahalanobis_squared
from gerbil_tune.models.bundle import load_bundle
from gerbil_tune.training.export import export_bundle
from gerbil_tune.training.loop import predict_validation
from gerbil_tune.training.session import InProcessSession
from gerbil_tune.training.steps import ValidationSet


@pytest.fixture
def finished(make_job, run_job):
    job = make_job(training={"epochs": 3, "global_batch_size": 16})
    return job, run_job(job)


def test_calibrated_predictions_have_the_error_that_they_state(finished, tmp_path):
    job, _ = finished
    bundle = load_bundle(export_bundle(job, tmp_path / "models", provenance={}))
    session = InProcessSession(lambda metrics: None, torch.device("cpu"))
    mean, covariance, truth = predict_validation(
        bundle.model, ValidationSet(bundle.model, job, session), session
    )
    squared = mahalanobis_squared(mean, bundle.covariance_scale * covariance, truth)
    assert squared.mean() / 2 == pytest.approx(1.0, rel=1e-5)
    assert bundle.covariance_scale != 1.0


def test_bundle_predicts_what_the_metrics_say(finished, tmp_path):
    job, reports = finished
    bundle = load_bundle(export_bundle(job, tmp_path / "models", provenance={}))
    best = min(reports, key=lambda report: report["val_error_median_mm"])
    for name in ("val_error_mean_mm", "val_error_median_mm", "val_error_p90_mm"):
        assert bundle.metrics[name] == pytest.approx(best[name], rel=1e-5)
    assert bundle.metrics["val_nll"] < best["val_nll"]  # calibration can only help here
    events = job.splits.validation
    errors_mm = []
    for i in range(len(events)):
        audio_BTC = torch.from_numpy(np.array(events.read(i)))[None]
        mean, _ = bundle.predict_batch(audio_BTC, torch.tensor([audio_BTC.shape[1]]))
        errors_mm.append(np.linalg.norm(mean[0, 0] - events.locations_mm[i, 0]))
    assert np.median(errors_mm) == pytest.approx(best["val_error_median_mm"], rel=1e-3)


def test_provenance_says_where_it_came_from(finished, tmp_path):
    job, _ = finished
    folder = export_bundle(job, tmp_path / "models", provenance={"study": "s", "trial": 3})
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["study"] == "s"
    assert provenance["trial"] == 3
    assert provenance["package_version"] == __version__
    assert provenance["training_events"] == 160
    assert provenance["validation_events"] == 41
    assert provenance["data_fingerprint"] == job.splits.train.fingerprint()
    mean_mm = job.splits.train.locations_mm.mean(axis=0)
    np.testing.assert_allclose(provenance["mean_location_mm"], mean_mm, atol=1e-3)


def test_all_three_weights_can_be_loaded(finished, tmp_path):
    job, _ = finished
    folder = export_bundle(job, tmp_path / "models", provenance={}, folder=tmp_path / "exact")
    assert folder == tmp_path / "exact"
    prints = {load_bundle(folder, weights=which).fingerprint for which in ("init", "final")}
    assert len(prints) == 2
