import json
import signal
import time
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
import torch

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.data.events import open_events
from gerbil_tune.data.splits.splits import Splits
from gerbil_tune.errors import ConfigError, LaunchError, NonFiniteLossError, StoppedError
from gerbil_tune.evaluation.calibration import gaussian_density
from gerbil_tune.evaluation.predictions import describe
from gerbil_tune.evaluation.results import EvaluationResult
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.inference.predict import predict_with_bundle
from gerbil_tune.models.bundle import Bundle, load_bundle
from gerbil_tune.models.calibrated import Calibration
from gerbil_tune.models.ensemble import Ensemble
from gerbil_tune.search.select import select_champion, top_trials
from gerbil_tune.training.loop import train_loop
from gerbil_tune.training.session import InProcessSession

SETUP = RecordingSetup(4, 125_000.0, (572.0, 356.0))
BASE = {
    "data": {"crop_length": 400},
    "features": {"gcc": {"window_length": 256}},
    "model": {"kind": "gcc-net", "lags": {"num_channels": 4, "num_blocks": 1, "hidden": 8}},
    "augmentation": {"noise_prob": 0.0},
}


def make_study(*values, directions=1, **attributes):
    """A study of complete trials with these values, all of different configurations."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["minimize"] * directions)
    study.set_user_attr("data_fingerprint", "d")
    for number, value in enumerate(values):
        trial = study.ask()
        config = attributes.get("configs", {}).get(number, {"optimizer/learning_rate": number})
        trial.set_user_attr("config", config)
        if number in attributes.get("warm", ()):
            trial.set_user_attr("warm_start", "studies/before")
        if value is None:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, value)
    return study


def numbers(trials):
    return [trial.number for trial in trials]


def test_the_best_come_first_and_pruned_and_borrowed_trials_do_not_count():
    study = make_study(5.0, 3.0, None, 4.0, 1.0, warm=[4])
    assert numbers(top_trials(study, 2)) == [1, 3]
    assert numbers(top_trials(study, 9)) == [1, 3, 0]
    assert top_trials(make_study(None), 3) == []


def test_a_configuration_is_refitted_once():
    same = {"optimizer/learning_rate": 0.1}
    study = make_study(2.0, 1.0, 3.0, configs={0: same, 1: same})
    assert numbers(top_trials(study, 3)) == [1, 2]


def test_the_front_comes_before_what_is_worse_in_everything():
    study = make_study((4.0, 1.0), (1.0, 9.0), (2.0, 9.5), (3.0, 2.0), (4.0, 1.0), directions=2)
    assert numbers(top_trials(study, 9)) == [1, 3, 0, 4, 2]


def train_in_process(job, use_gpu, on_epoch):
    session = InProcessSession(on_epoch, torch.device("cpu"), stop_file=job.stop_file)
    if train_loop(job, session).epoch < job.config.training.epochs:
        raise StoppedError("stopped; the same command goes on")
    return 1


@dataclass
class Fit:
    """A study with its place, of which each test selects the champion as it likes."""

    study: optuna.Study
    site: SimpleNamespace
    folder: object
    test: object

    def __post_init__(self):
        self.said = []
        self.trained = []

    def config_of(self, trial):
        training = {"epochs": 1, "global_batch_size": 8, "seed": trial.number}
        return ExperimentConfig.model_validate({**BASE, "training": training})

    def train(self, job, use_gpu, on_epoch):
        self.trained.append((job.config.training.seed, job.config.training.epochs))
        return train_in_process(job, use_gpu, on_epoch)

    def select(self, **options):
        defaults = {
            "study_dir": self.folder / "study",
            "root": self.folder / "trained_models",
            "top_k": 2,
            "refit_epochs": 2,
            "test_events": self.test,
            "predict": predict_with_bundle,
            "use_gpu": False,
            "train": self.train,
            "say": self.said.append,
        }
        return select_champion(self.study, self.config_of, self.site, **{**defaults, **options})

    def bundles(self):
        return sorted(p.name for p in (self.folder / "trained_models/gerbil-locator").iterdir())


@pytest.fixture
def fit(make_event_file, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    events = open_events(make_event_file(num_events=60, lengths=(250, 350)))
    train, validation, test = (
        events.subset(np.arange(*ends)) for ends in ((0, 24), (24, 40), (40, 60))
    )
    site = SimpleNamespace(
        setup=SETUP, splits=Splits(train, validation, test), metric="val_error_median_mm"
    )
    yield Fit(make_study(12.0, 11.0, 13.0), site, tmp_path, test)
    torch.set_num_threads(before)


def test_one_refit_is_the_champion_without_a_comparison(fit):
    epochs = []
    selection = fit.select(
        top_k=1, on_epoch=lambda metrics, n: epochs.append((metrics["epoch"], n))
    )
    assert (selection.trial, selection.ensemble_of, selection.rows) == (1, (), [])
    assert fit.trained == [(1, 2)]
    assert epochs == [(1, 2), (2, 2)]
    assert fit.said == ["trial 1 (val_error_median_mm 11): training it whole for 2 epochs"]
    bundle = load_bundle(selection.bundle)
    assert bundle.provenance["trial"] == 1
    assert bundle.provenance["trials"] == 3
    assert bundle.provenance["data_fingerprint"] == "d"
    assert fit.study.user_attrs["champion"] == 1
    assert fit.study.user_attrs["bundle"] == str(selection.bundle)


def test_several_are_compared_on_the_test_events(fit):
    selection = fit.select(top_k=3)
    assert [refit.trial for refit in selection.refits] == [1, 0, 2]
    assert selection.compared_on == "test"
    names = [row.name for row in selection.rows]
    assert names == ["trial 1", "trial 0", "trial 2", "ensemble of 3"]
    medians = {row.name: row.median_mm for row in selection.rows[:3]}
    assert min(medians, key=medians.get) == f"trial {selection.trial}"
    stored = EvaluationResult.load(fit.folder / "study" / "comparison.h5")
    assert stored.rows() == selection.rows
    assert len(stored.locations_mm_NKD) == 20
    champion = load_bundle(selection.bundle)
    assert isinstance(champion, Ensemble if selection.ensemble_of else Bundle)
    kept = fit.study.user_attrs["selection"]
    assert kept == json.loads(json.dumps(selection.to_json()))
    assert "on 20 events" in " ".join(selection.sentences)
    assert fit.bundles() == ["00001", "00002", "00003", "00004"]


def test_the_ensemble_is_calibrated_on_the_validation_events(fit):
    fit.select()
    ensemble = load_bundle(fit.folder / "trained_models/gerbil-locator/00003")
    assert ensemble.provenance["member_trials"] == [1, 0]
    assert ensemble.provenance["mean_location_mm"]
    validation = fit.site.splits.validation
    predictions = predict_with_bundle(ensemble.path, validation)
    assert predictions.nll_NK.mean() == pytest.approx(ensemble.metrics["val_nll"], rel=1e-3)
    errors = np.linalg.norm(validation.locations_mm - predictions.mean_mm_NKD, axis=-1)
    assert ensemble.metrics["val_error_median_mm"] == pytest.approx(np.median(errors), rel=1e-3)


def test_an_ensemble_that_wins_is_the_bundle(fit):
    """Its members err to opposite sides, so that it is right on the spot."""
    fit.select()
    truth = fit.test.locations_mm
    sides = {"00001": 20.0, "00002": -21.0, "00003": -0.5}

    def predict(bundle, events):
        covariance = np.tile(np.eye(2) * 300, (len(events), 1, 1, 1))
        density = gaussian_density(truth + sides[bundle.name], covariance)
        return describe(density, Calibration(), fit.site.setup, truth)

    selection = fit.select(predict=predict)
    assert (selection.trial, selection.ensemble_of) == (1, (1, 0))
    assert selection.bundle.name == "00003"
    assert fit.study.user_attrs["bundle"] == str(selection.bundle)
    assert fit.study.user_attrs["selection"]["ensemble_of"] == [1, 0]


def test_without_test_events_it_says_that_validation_flatters(fit):
    selection = fit.select(test_events=None)
    assert selection.compared_on == "validation"
    assert "no test events" in selection.sentences[0]
    assert len(selection.evaluation.locations_mm_NKD) == 16


def test_what_is_done_is_not_done_again(fit):
    first = fit.select()
    assert len(fit.trained) == 2
    again = fit.select()
    assert len(fit.trained) == 2
    assert (again.bundle, again.sentences) == (first.bundle, first.sentences)
    assert fit.bundles() == ["00001", "00002", "00003"]
    fit.select(top_k=3)
    assert len(fit.trained) == 3
    fit.select(top_k=1, refit_epochs=3)
    assert fit.trained[3:] == [(1, 3)]


def test_a_stop_passes_through_and_the_next_call_goes_on(fit):
    def stop(job, use_gpu, on_epoch):
        if job.config.training.seed == 0:
            raise StoppedError("stopped after epoch 1; the same command goes on")
        return fit.train(job, use_gpu, on_epoch)

    with pytest.raises(StoppedError):
        fit.select(train=stop)
    assert fit.trained == [(1, 2)]
    fit.select()
    assert fit.trained == [(1, 2), (0, 2)]
    assert fit.bundles() == ["00001", "00002", "00003"]


@pytest.mark.parametrize(
    ("number", "epoch"), [(signal.SIGINT, 3), (signal.SIGTERM, 1), (signal.SIGUSR1, 1)]
)
def test_a_signal_stops_it_after_a_checkpoint(fit, number, epoch):
    seen = []

    def on_epoch(metrics, epochs):
        seen.append(metrics["epoch"])
        if metrics["epoch"] == epoch:
            signal.raise_signal(number)
            time.sleep(0.6)  # the loop looks for the request twice a second

    with pytest.raises(StoppedError):
        fit.select(refit_epochs=3, on_epoch=on_epoch)
    assert seen == list(range(1, epoch + 1))
    assert "stopping" in fit.said[-1]
    seen.clear()
    selection = fit.select(
        refit_epochs=3, on_epoch=lambda metrics, _: seen.append(metrics["epoch"])
    )
    # A run that goes on reports its last epoch again.
    assert seen == [*([1, 2, 3] if epoch == 1 else []), 1, 2, 3]
    assert len(selection.rows) == 3


def test_a_refit_that_runs_out_of_memory_goes_on_in_smaller_parts(fit):
    def train(job, use_gpu, on_epoch):
        if job.config.training.accumulate_steps == 1:
            raise MemoryError("no room")
        return fit.train(job, use_gpu, on_epoch)

    selection = fit.select(train=train)
    assert len(selection.refits) == 2
    assert fit.trained == [(1, 2), (0, 2)]
    assert sum(said.endswith("going on with each step in 2 parts") for said in fit.said) == 2


def test_a_refit_that_runs_out_of_memory_twice_says_what_can_be_done(fit):
    def train(job, use_gpu, on_epoch):
        raise MemoryError("no room")

    with pytest.raises(LaunchError, match="free memory or take a machine with more") as error:
        fit.select(train=train)
    assert "--set" not in str(error.value)  # a study's configuration cannot be changed


def test_a_refit_that_diverges_is_left_out_and_not_tried_again(fit):
    def diverge(job, use_gpu, on_epoch):
        if job.config.training.seed == 1:
            raise NonFiniteLossError("the loss is NaN in epoch 2")
        return fit.train(job, use_gpu, on_epoch)

    for _ in range(2):
        selection = fit.select(train=diverge)
        assert (selection.trial, selection.rows) == (0, [])
        assert [refit.reason for refit in selection.refits] == ["the loss is NaN in epoch 2", ""]
        assert "trial 1 cannot be the champion: the loss is NaN in epoch 2" in fit.said
    assert fit.trained == [(0, 2)]
    with pytest.raises(NonFiniteLossError, match="NaN in epoch 2"):
        fit.select(top_k=1)


def test_nothing_complete_is_nothing_to_keep(fit):
    fit.study = make_study(None)
    with pytest.raises(ConfigError, match=r"no trial of the study .* was completed"):
        fit.select()
