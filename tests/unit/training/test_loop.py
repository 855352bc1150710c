import contextlib
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gerbil_tune.data.events import open_events
from gerbil_tune.data.splits.splits import Splits
from gerbil_tune.errors import ConfigError, NonFiniteLossError
from gerbil_tune.evaluation.score import score
from gerbil_tune.models.localizer import Localizer
from gerbil_tune.training.checkpoints import whole_checkpoints
from gerbil_tune.training.loop import train_loop
from gerbil_tune.training.session import InProcessSession
from gerbil_tune.training.steps import ValidationSet
from gerbil_tune.training.validation import (
    evaluate,
    predict_ms_per_event,
    predict_validation,
)

CPU = torch.device("cpu")
QUIET = {"mirror_prob": 0.0, "noise_prob": 0.0}


def session():
    return InProcessSession(lambda metrics: None, CPU)


def weights(job, which="final"):
    return load_file(job.run_dir / f"{which}_weights.safetensors")


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_an_easy_problem_is_learned(make_job, run_job):
    job = make_job(
        training={"epochs": 8, "global_batch_size": 8},
        optimizer={"learning_rate": 4e-3},
        augmentation=QUIET,
    )
    reports = run_job(job)
    truth = job.splits.validation.locations_mm
    centre_mm = np.median(np.linalg.norm(truth[:, 0], axis=1))
    assert reports[-1]["val_error_median_mm"] < 0.4 * centre_mm
    assert reports[-1]["train_loss"] < reports[0]["train_loss"] - 1.5
    assert reports[-1]["val_nll"] < reports[0]["val_nll"] - 1.0


@pytest.mark.parametrize("kind", ["simplenet", "densenet", "corrnet"])
def test_other_architectures_train_too(make_job, run_job, kind):
    conv = {
        "channels": [4, 8],
        "kernel_sizes": [9, 9],
        "downsample": [True, True],
        "dilations": [1, 1],
        "normalization": "batch",
    }
    model = {"kind": kind, "num_stages": 4, "kernel_size": 9, "normalization": "batch"}
    if kind != "densenet":
        model = {"kind": kind, "conv": conv}
    reports = run_job(make_job(model=model, training={"epochs": 2}))
    assert [report["epoch"] for report in reports] == [1, 2]
    assert reports[1]["train_loss"] < reports[0]["train_loss"]


@pytest.mark.parametrize(("batch_norm", "moves"), [("frozen", False), ("sync", True)])
def test_frozen_statistics_are_those_of_the_first_epoch(make_job, run_job, batch_norm, moves):
    conv = {"channels": [4], "kernel_sizes": [9], "downsample": [True], "dilations": [1]}
    job = make_job(
        model={"kind": "simplenet", "conv": {**conv, "normalization": "batch"}},
        training={"batch_norm": batch_norm},
    )
    means = []

    def note(metrics):
        tensors = next(whole_checkpoints(job.run_dir)).tensors
        name = next(n for n in tensors if n.startswith("model/") and n.endswith("running_mean"))
        means.append(tensors[name])

    run_job(job, note)
    assert means[0].abs().sum() > 0
    assert torch.equal(means[0], means[2]) != moves


def test_the_time_to_predict_is_that_of_some_events_from_their_audio(make_job):
    job, reports = make_job(training={"epochs": 2}), []
    train_loop(job, InProcessSession(reports.append, CPU))
    first, second = (report["predict_ms_per_event"] for report in reports)
    assert 0 < first == second < 100


def test_what_does_not_fit_into_memory_is_timed_in_smaller_batches(make_job, monkeypatch):
    job = make_job()
    model = Localizer(job.config, job.setup)
    sizes, forward = [], Localizer.forward

    def small_memory(model, audio_BTC, *others):
        sizes.append(len(audio_BTC))
        if len(audio_BTC) > 20:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(model, audio_BTC, *others)

    monkeypatch.setattr(Localizer, "forward", small_memory)
    assert predict_ms_per_event(model, ValidationSet(model, job, session()), session()) > 0
    assert sorted(set(sizes)) == [16, 32, 41]


def test_what_is_reported_after_each_epoch(make_job):
    job, reports = make_job(), []
    progress = train_loop(job, InProcessSession(reports.append, CPU))
    assert [report["epoch"] for report in reports] == [1, 2, 3]
    assert [report["training_done"] for report in reports] == [0.0, 0.0, 1.0]
    expected = {"epoch", "training_done", "best_value", "train_loss", "learning_rate"}
    expected |= {"epoch_s", "train_events_per_s", "predict_ms_per_event"}
    scores = {f"val_{name}" for name in score(*validation_of(job))}
    assert all(set(report) == expected | scores for report in reports[:2])
    assert set(reports[2]) == expected | scores | {f"best_{name}" for name in scores}
    medians = [report["val_error_median_mm"] for report in reports]
    lowest = [min(medians[: i + 1]) for i in range(3)]
    assert [report["best_value"] for report in reports] == lowest
    assert progress.epoch == 3
    assert progress.best_value == min(medians)
    assert progress.best_metrics["val_error_median_mm"] == min(medians)
    best = reports[medians.index(min(medians))]
    assert all(reports[2][f"best_{name}"] == best[name] for name in scores)


def validation_of(job, which="final"):
    """What the weights state of the validation events, and the truth."""
    model = Localizer(job.config, job.setup)
    model.load_state_dict(weights(job, which))
    raw, truth = predict_validation(model, ValidationSet(model, job, session()), session())
    return model.density(raw), truth


def test_history_has_a_line_an_epoch(make_job):
    job, reports = make_job(), []
    train_loop(job, InProcessSession(reports.append, CPU))
    lines = (job.run_dir / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == reports


def test_same_seed_same_run_other_seed_another(make_job, run_job):
    jobs = [make_job(name) for name in ("first", "second")]
    jobs.append(make_job("third", training={"seed": 6}))
    first, second, third = [run_job(job) for job in jobs]
    assert first == second
    assert first != third
    for which in ("init", "best", "final"):
        assert same(weights(jobs[0], which), weights(jobs[1], which))
    assert not same(weights(jobs[0], "init"), weights(jobs[2], "init"))


def test_a_run_does_not_depend_on_what_ran_before_it(make_job, run_job):
    """A worker trains one trial after the other."""
    first = run_job(make_job("first"))
    torch.manual_seed(99)
    torch.rand(1000)
    run_job(make_job("other", training={"seed": 7, "epochs": 1}))
    assert run_job(make_job("second")) == first


@pytest.mark.parametrize("seed", [0, 2**31])
def test_any_seed_trains(make_job, run_job, seed):
    assert len(run_job(make_job(training={"seed": seed, "epochs": 1}))) == 1


def test_weights_are_those_of_start_best_epoch_and_end(make_job, run_job):
    job = make_job(training={"epochs": 4}, optimizer={"learning_rate": 0.05})
    reports = run_job(job)
    best = min(reports, key=lambda report: report["val_error_median_mm"])
    for which, report in (("best", best), ("final", reports[-1])):
        measured = score(*validation_of(job, which))["error_median_mm"]
        assert measured == report["val_error_median_mm"]
    torch.manual_seed(job.config.training.seed)
    assert same(weights(job, "init"), Localizer(job.config, job.setup).state_dict())


def test_best_is_by_the_metric_of_the_job(make_job, run_job):
    import dataclasses

    job = dataclasses.replace(make_job(), metric="val_nll")
    reports = run_job(job)
    assert reports[-1]["best_value"] == min(report["val_nll"] for report in reports)


def test_every_validation_event_is_counted_once(make_job, run_job):
    job = make_job(training={"epochs": 1})
    run_job(job)
    density, truth = validation_of(job)
    assert density.mean_mm_BKD.shape == truth.shape == (41, 1, 2)
    wanted = job.splits.validation.locations_mm[:, 0]
    order, wanted_order = np.lexsort(truth[:, 0].numpy().T), np.lexsort(wanted.T)
    np.testing.assert_array_equal(truth[order, 0], wanted[wanted_order])


def test_validation_does_not_depend_on_the_batch_size(make_job, run_job):
    job = make_job(training={"epochs": 1})
    run_job(job)
    expected = score(*validation_of(job))
    for batch_size in (1, 7, 1000):
        other = make_job(training={"epochs": 1, "global_batch_size": batch_size})
        model = Localizer(other.config, other.setup)
        model.load_state_dict(weights(job))
        validation = ValidationSet(model, other, session())
        measured, _ = evaluate(model, validation, other, session())
        assert measured == pytest.approx({f"val_{k}": v for k, v in expected.items()}, rel=1e-4)


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_divergence_is_said_in_one_sentence(make_job, run_job, kind):
    job = make_job(optimizer={"kind": kind, "learning_rate": 1e30})
    with pytest.raises(NonFiniteLossError, match="optimizer/learning_rate") as error:
        run_job(job)
    assert "\n" not in str(error.value)
    assert "1e+30" in str(error.value)


@pytest.mark.parametrize("learning_rate", [0.5, 3.0, 6.0])
@pytest.mark.parametrize("seed", [1, 2])
def test_near_divergence_either_trains_or_is_called_by_its_name(
    make_job, run_job, learning_rate, seed
):
    """No other error comes first: needles of Gaussians once failed in the calibration."""
    job = make_job(
        optimizer={"learning_rate": learning_rate}, training={"seed": seed, "clip_norm": None}
    )
    with contextlib.suppress(NonFiniteLossError):
        assert all(np.isfinite(report["val_nll"]) for report in run_job(job))


@pytest.mark.parametrize("spoiled", ["train", "validation"])
def test_nan_in_the_audio_ends_training(make_job, run_job, easy_splits, make_event_file, spoiled):
    audio = np.random.default_rng(0).standard_normal((12 * 500, 4))
    audio[3 * 500 + 200] = np.nan
    path = make_event_file(audio=audio, lengths=[500] * 12)
    splits = {"train": easy_splits.train, "validation": easy_splits.validation}
    splits[spoiled] = open_events(path)
    job = make_job(splits=Splits(**splits, test=None), training={"global_batch_size": 4})
    with pytest.raises(NonFiniteLossError, match=r"in epoch 1,|validation events") as error:
        run_job(job)
    cause = (
        "because the audio of event 3 of events.h5 holds NaN or infinite values; gerbil-tune data c"
    )
    assert cause in str(error.value)
    assert "learning_rate" not in str(error.value)


def test_one_location_that_is_not_finite_is_named(make_job, run_job, make_event_file):
    locations = np.random.default_rng(0).uniform(-100, 100, (12, 2))
    locations[5, 1] = np.inf
    events = open_events(make_event_file(locations=locations, lengths=[500] * 12))
    splits = Splits(events.subset(np.arange(2, 12)), events.subset([0, 1]), None)
    job = make_job(splits=splits, training={"global_batch_size": 4})
    with pytest.raises(
        NonFiniteLossError, match=r"the location of event 5 of events\.h5 holds NaN"
    ):
        run_job(job)


def test_fewer_events_than_a_batch_are_one_smaller_batch(make_job, run_job, easy_splits):
    few = Splits(easy_splits.train.subset(np.arange(5)), easy_splits.validation, None)
    assert len(run_job(make_job(splits=few, training={"global_batch_size": 64}))) == 3


def test_mirroring_an_unknown_array_is_refused_before_anything_is_trained(make_job):
    import dataclasses

    job = make_job(augmentation={"mirror_prob": 0.5})
    job = dataclasses.replace(job, setup=dataclasses.replace(job.setup, microphones_mm=None))
    with pytest.raises(ConfigError, match="mirror_prob"):
        train_loop(job, session())
