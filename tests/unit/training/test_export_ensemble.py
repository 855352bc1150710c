import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from gerbil_tune import __version__
from gerbil_tune.errors import DatasetError
from gerbil_tune.evaluation.score import score
from gerbil_tune.evaluation.temperature import fit_temperature
from gerbil_tune.models.bundle import load_bundle
from gerbil_tune.models.density import LocationDensity
from gerbil_tune.training.export import export_bundle, export_ensemble, has_validation_predictions
from gerbil_tune.training.loop import BEST_PREDICTIONS


@pytest.fixture
def members(make_job, run_job, tmp_path):
    """Run folder and bundle of two runs with different seeds, and their validation events."""
    pairs = []
    for seed in (1, 2):
        job = make_job(f"run-{seed}", training={"epochs": 2, "seed": seed})
        assert not has_validation_predictions(job.run_dir)
        run_job(job)
        assert has_validation_predictions(job.run_dir)
        provenance = {"study": "s", "trial": seed + 10, "workers": 2}
        facts = {"data_fingerprint": "of the start", "provenance": provenance}
        pairs.append((job.run_dir, export_bundle(job, tmp_path / "models", **facts)))
    return pairs, job.splits.validation


def predict(bundle, events):
    answers = []
    for i in range(len(events)):
        audio_BTC = torch.from_numpy(np.array(events.read(i)))[None]
        answers.append(bundle.predict_batch(audio_BTC, torch.tensor([audio_BTC.shape[1]])))
    fields = ("log_weights_BKM", "means_mm_BKMD", "scale_tril_mm_BKMDD")
    return LocationDensity(*(torch.cat([getattr(a, f) for a in answers]) for f in fields))


def test_it_is_calibrated_without_the_data(members, tmp_path):
    pairs, events = members
    bundle = load_bundle(export_ensemble(pairs, tmp_path / "models"))
    assert bundle.path == tmp_path / "models" / "gerbil-locator" / "00003"
    density, truth = predict(bundle, events), torch.from_numpy(events.locations_mm)
    assert fit_temperature(density, truth) == pytest.approx(1, rel=1e-2)
    for name, value in score(density, truth).items():
        assert bundle.metrics[f"val_{name}"] == pytest.approx(value, rel=3e-2, abs=0.03)


def test_it_is_not_worse_than_its_worst_member(members, tmp_path):
    pairs, _ = members
    ensemble = load_bundle(export_ensemble(pairs, tmp_path / "models"))
    assert ensemble.metrics["val_error_mean_mm"] < max(
        member.metrics["val_error_mean_mm"] for member in ensemble.members
    )


def test_provenance_names_the_members(members, tmp_path):
    pairs, _ = members
    folder = export_ensemble(pairs, tmp_path / "models")
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["members"] == [str(bundle) for _, bundle in pairs]
    assert provenance["member_trials"] == [11, 12]
    assert provenance["study"] == "s"
    assert provenance["data_fingerprint"] == "of the start"
    assert provenance["package_version"] == __version__
    assert not {"trial", "workers"} & set(provenance)


def test_members_may_read_the_events_in_orders_of_their_own(make_job, run_job, tmp_path):
    """Features are kept in the order of the file, audio is read by its length, in batches of each model."""
    kinds = {"gcc-net": 32, "densenet": 8}
    pairs = []
    for kind, batch in kinds.items():
        small = {"num_stages": 3, "kernel_size": 5} if kind == "densenet" else {}
        training = {"epochs": 1, "global_batch_size": batch}
        job = make_job(kind, model={"kind": kind, **small}, training=training)
        run_job(job)
        facts = {"data_fingerprint": "of the start", "provenance": {}}
        pairs.append((job.run_dir, export_bundle(job, tmp_path / "models", **facts)))
    events = job.splits.validation
    assert len(set(events.lengths)) > 10
    for run_dir, _ in pairs:
        truth = load_file(run_dir / BEST_PREDICTIONS)["truth"]
        np.testing.assert_array_equal(truth, events.locations_mm)
    bundle = load_bundle(export_ensemble(pairs, tmp_path / "models"))
    expected = score(predict(bundle, events), torch.from_numpy(events.locations_mm))
    for name, value in expected.items():
        assert bundle.metrics[f"val_{name}"] == pytest.approx(value, rel=3e-2, abs=0.03)


def test_members_share_their_validation_events(members, tmp_path):
    pairs, _ = members
    run_dir, _ = pairs[1]
    stored = load_file(run_dir / BEST_PREDICTIONS)
    save_file({**stored, "truth": stored["truth"][::-1].copy()}, run_dir / BEST_PREDICTIONS)
    with pytest.raises(DatasetError, match="validated on other events"):
        export_ensemble(pairs, tmp_path / "models")
