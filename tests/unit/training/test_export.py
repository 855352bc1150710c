import json
import shutil

import numpy as np
import pytest
import torch

from gerbil_tune import __version__
from gerbil_tune.data.events import open_events
from gerbil_tune.data.splits.splits import Splits
from gerbil_tune.errors import DatasetError
from gerbil_tune.models.bundle import load_bundle
from gerbil_tune.training.export import export_bundle
from gerbil_tune.training.session import InProcessSession
from gerbil_tune.training.steps import ValidationSet
from gerbil_tune.training.validation import predict_validation


@pytest.fixture
def finished(make_job, run_job):
    job = make_job(training={"epochs": 3, "global_batch_size": 16})
    return job, run_job(job)


def export(job, root, **options):
    return export_bundle(
        job, root, **{"data_fingerprint": "of the start", "provenance": {}, **options}
    )


def test_calibrated_predictions_have_the_error_that_they_state(finished, tmp_path):
    job, _ = finished
    bundle = load_bundle(export(job, tmp_path / "models"))
    session = InProcessSession(lambda metrics: None, torch.device("cpu"))
    raw, truth = predict_validation(
        bundle.model, ValidationSet(bundle.model, job, session), session
    )
    calibrated = bundle.model.density(raw).tempered(bundle.calibration.temperature)
    squared = calibrated.score_BK(truth)
    assert squared.mean().item() / 2 == pytest.approx(1.0, rel=1e-5)
    assert bundle.calibration.temperature != 1.0
    hits = squared <= bundle.calibration.conformal.overall[0][1]
    assert hits.float().mean().item() == pytest.approx(0.9, abs=0.05)


def test_bundle_predicts_what_the_metrics_say(finished, tmp_path):
    job, reports = finished
    bundle = load_bundle(export(job, tmp_path / "models"))
    best = min(reports, key=lambda report: report["val_error_median_mm"])
    for name in ("val_error_mean_mm", "val_error_median_mm", "val_error_p90_mm"):
        assert bundle.metrics[name] == pytest.approx(best[name], rel=1e-5)
    assert bundle.metrics["val_nll"] < best["val_nll"]  # calibration can only help here
    events = job.splits.validation
    errors_mm = []
    for i in range(len(events)):
        audio_BTC = torch.from_numpy(np.array(events.read(i)))[None]
        density = bundle.predict_batch(audio_BTC, torch.tensor([audio_BTC.shape[1]]))
        mean = density.mean_mm_BKD[0, 0].numpy()
        errors_mm.append(np.linalg.norm(mean - events.locations_mm[i, 0]))
    assert np.median(errors_mm) == pytest.approx(best["val_error_median_mm"], rel=1e-3)


def test_provenance_says_where_it_came_from(finished, tmp_path):
    job, _ = finished
    folder = export(job, tmp_path / "models", provenance={"study": "s", "trial": 3})
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["study"] == "s"
    assert provenance["trial"] == 3
    assert provenance["package_version"] == __version__
    assert provenance["training_events"] == 160
    assert provenance["validation_events"] == 41
    assert provenance["data_fingerprint"] == "of the start"
    mean_mm = job.splits.train.locations_mm.mean(axis=0)
    np.testing.assert_allclose(provenance["mean_location_mm"], mean_mm, atol=1e-3)


def test_all_three_weights_can_be_loaded(finished, tmp_path):
    job, _ = finished
    folder = export(job, tmp_path / "models", folder=tmp_path / "exact")
    assert folder == tmp_path / "exact"
    prints = {load_bundle(folder, weights=which).fingerprint for which in ("init", "final")}
    assert len(prints) == 2


@pytest.mark.parametrize("how", ["truncated", "deleted"])
def test_data_that_go_in_mid_training_are_not_missed(make_job, run_job, easy_splits, tmp_path, how):
    """Features are in memory after the first epoch, and what the export needs is kept too."""
    path = tmp_path / "events.h5"
    shutil.copy(easy_splits.train.files[0].path, path)
    whole = open_events(path)
    splits = Splits(whole.subset(np.arange(160)), whole.subset(np.arange(160, 201)), None)
    constant = {"augmentation": {"noise_prob": 0.0}, "data": {"crop_length": 1000}}
    job, intact = make_job(splits=splits, **constant), make_job("intact", **constant)

    def spoil(metrics):
        if metrics["epoch"] == 1 and how == "deleted":
            path.unlink()
        elif metrics["epoch"] == 1:
            with path.open("r+b") as file:
                file.truncate(10_000)

    assert run_job(job, spoil) == run_job(intact)
    with pytest.raises(DatasetError):
        splits.train.files[0].check_unchanged()
    spoiled = load_bundle(export(job, tmp_path / "models"))
    expected = load_bundle(export(intact, tmp_path / "models"))
    assert spoiled.fingerprint == expected.fingerprint
    assert spoiled.calibration == expected.calibration
    assert spoiled.metrics == expected.metrics


def test_predictions_of_the_best_weights_survive_an_interruption(make_job, run_job, tmp_path):
    job, undisturbed = make_job("stopped"), make_job("undisturbed")
    run_job(undisturbed)

    def stop(metrics):
        if metrics["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(job, stop)
    run_job(job)
    expected = load_bundle(export(undisturbed, tmp_path / "models"))
    assert load_bundle(export(job, tmp_path / "models")).metrics == expected.metrics
