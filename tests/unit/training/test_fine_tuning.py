import shutil

import h5py
import pytest
import torch
from safetensors.torch import load_file

from gerbil_tune.config.schema import AdamWConfig, FineTuneConfig, SgdConfig
from gerbil_tune.data.events import open_events
from gerbil_tune.data.splits.splits import Splits
from gerbil_tune.errors import ModelNotFoundError
from gerbil_tune.models.batch_norm import MaskedBatchNorm
from gerbil_tune.models.bundle import load_bundle, weights_name
from gerbil_tune.models.localizer import Localizer
from gerbil_tune.models.low_rank import LowRankChange, merged_weights
from gerbil_tune.training.checkpoints import whole_checkpoints
from gerbil_tune.training.export import export_bundle
from gerbil_tune.training.notes import add_notes, read_notes
from gerbil_tune.training.optimizer import choose_trained, make_optimizer, set_training_mode

QUIET = {"mirror_prob": 0.0, "noise_prob": 0.0}
CONV = {
    "channels": [4, 6],
    "kernel_sizes": [9, 9],
    "downsample": [True, True],
    "dilations": [1, 1],
    "normalization": "batch",
}
OVER_TIME = {"kind": "simplenet", "conv": CONV}
PARTS = ["all", "head", "low-rank"]
READOUT = {"network.readout.weight", "network.readout.bias"}


@pytest.fixture
def pretrain(make_job, run_job, tmp_path):
    """Train a model and export it; returns the bundle's folder."""

    def pretrain(**sections):
        job = make_job("pretraining", **{"training": {"epochs": 1}, **sections})
        run_job(job)
        return export(job, tmp_path / "models")

    return pretrain


def export(job, root):
    return export_bundle(job, root, data_fingerprint="0", provenance={})


def weights(job, which="final"):
    return load_file(job.run_dir / weights_name(which))


def best_of(bundle):
    return load_file(bundle / weights_name("best"))


def differing(first, second):
    assert first.keys() == second.keys()
    return {name for name in first if not torch.equal(first[name], second[name])}


@pytest.mark.parametrize("what", PARTS)
def test_training_begins_with_exactly_the_trained_model(pretrain, make_job, run_job, what):
    bundle = pretrain(model=OVER_TIME)
    job = make_job(
        model=OVER_TIME,
        fine_tune={"init_from": str(bundle), "what": what},
        training={"epochs": 1, "seed": 99},
    )
    run_job(job)
    assert differing(weights(job, "init"), best_of(bundle)) == set()
    assert str(bundle) in read_notes(job.run_dir)[0]


def test_a_trained_readout_is_all_that_changes(pretrain, make_job, run_job):
    bundle = pretrain(model=OVER_TIME)
    job = make_job(model=OVER_TIME, fine_tune={"init_from": str(bundle), "what": "head"})
    run_job(job)
    assert differing(weights(job), best_of(bundle)) == READOUT


def test_low_rank_changes_are_of_low_rank_and_merged(pretrain, make_job, run_job, tmp_path):
    bundle = pretrain(model=OVER_TIME)
    job = make_job(
        model=OVER_TIME, fine_tune={"init_from": str(bundle), "what": "low-rank", "rank": 2}
    )
    run_job(job)
    before, after = best_of(bundle), weights(job)
    layers = {f"network.conv.layers.{index}.conv.weight" for index in range(2)}
    assert differing(after, before) == READOUT | layers
    for name in layers:
        values = torch.linalg.svdvals((after[name] - before[name]).flatten(1).double())
        assert values[1] > 1e-6
        assert (values[2:] < 1e-6).all()
    tuned = load_bundle(export(job, tmp_path / "models"), weights="final")
    assert differing(dict(tuned.model.state_dict()), after) == set()


@pytest.mark.parametrize("what", PARTS)
@pytest.mark.parametrize("kind", [AdamWConfig, SgdConfig])
def test_the_optimizer_has_what_is_trained_and_nothing_else(make_job, what, kind):
    job = make_job(model=OVER_TIME)
    model = Localizer(job.config, job.setup)
    choose_trained(model, FineTuneConfig(what=what))
    optimizer = make_optimizer(kind(weight_decay=0.3), model)
    decayed, others = (group["params"] for group in optimizer.param_groups)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {names[id(parameter)] for parameter in decayed + others}
    assert found == {name for name, p in model.named_parameters() if p.requires_grad}
    changes = {name for name in names.values() if name.endswith((".down", ".up"))}
    num_changes = sum(2 for module in model.modules() if isinstance(module, LowRankChange))
    assert len(changes) == num_changes == (4 if what == "low-rank" else 0)
    if what != "all":
        assert found == READOUT | changes
        decayed_names = {names[id(parameter)] for parameter in decayed}
        assert decayed_names == {"network.readout.weight"} | changes


def test_what_is_frozen_behaves_as_in_prediction(make_job):
    job = make_job(model={"kind": "corrnet", "conv": CONV, "lags": {"dropout": 0.5, "hidden": 8}})
    model = Localizer(job.config, job.setup)
    kinds = (MaskedBatchNorm, torch.nn.Dropout)

    def in_training(what):
        set_training_mode(model, FineTuneConfig(what=what))
        assert model.network.readout.training
        modes = {
            kind: {m.training for m in model.modules() if isinstance(m, kind)} for kind in kinds
        }
        return [modes[kind] for kind in kinds]

    assert in_training("all") == [{True}, {True}]
    assert in_training("head") == [{False}, {False}]
    assert in_training("low-rank") == [{False}, {True}]
    assert in_training("all") == [{True}, {True}]


def kill_after_first_epoch(metrics):
    if metrics["epoch"] == 1:
        raise KeyboardInterrupt


@pytest.mark.parametrize("what", PARTS)
def test_a_run_goes_on_bit_for_bit_without_the_trained_model(pretrain, make_job, run_job, what):
    sections = {
        "model": OVER_TIME,
        "fine_tune": {"init_from": str(pretrain(model=OVER_TIME)), "what": what},
        "training": {"epochs": 2, "ema_decay": 0.9},
    }
    undisturbed, job = make_job("undisturbed", **sections), make_job("killed", **sections)
    expected = run_job(undisturbed)
    with pytest.raises(KeyboardInterrupt):
        run_job(job, kill_after_first_epoch)
    shutil.rmtree(job.config.fine_tune.init_from)
    assert run_job(job)[-1] == expected[-1]
    for which in ("init", "best", "final"):
        assert differing(weights(job, which), weights(undisturbed, which)) == set()
    assert read_notes(job.run_dir) == read_notes(undisturbed.run_dir)
    with pytest.raises(ModelNotFoundError, match="is not a model bundle"):
        run_job(make_job("another", **sections))


def test_checkpoints_have_plain_best_weights_and_the_changes_themselves(
    pretrain, make_job, run_job
):
    job = make_job(
        fine_tune={"init_from": str(pretrain()), "what": "low-rank"}, training={"epochs": 1}
    )
    run_job(job)
    tensors = next(whole_checkpoints(job.run_dir)).tensors
    model = {name.removeprefix("model/"): t for name, t in tensors.items() if "model/" in name}
    best = {name.removeprefix("best/"): t for name, t in tensors.items() if "best/" in name}
    assert any(name.endswith(".up") for name in model)
    changed = Localizer(job.config, job.setup)
    assert best.keys() == changed.state_dict().keys()
    choose_trained(changed, job.config.fine_tune)
    changed.load_state_dict(model)
    assert differing(merged_weights(changed), best) == set()


@pytest.fixture(scope="module")
def shifted_splits(easy_splits, tmp_path_factory):
    """The easy problem, after the arena was moved by 60 mm and 40 mm under the microphones."""
    path = tmp_path_factory.mktemp("shifted") / "events.h5"
    shutil.copy(easy_splits.train.files[0].path, path)
    with h5py.File(path, "r+") as file:
        file["locations"][:] += [60.0, -40.0]
    events = open_events(path)
    return Splits(
        *(events.subset(part.rows) for part in (easy_splits.train, easy_splits.validation)), None
    )


def test_a_model_learns_that_the_arena_was_moved(pretrain, make_job, run_job, shifted_splits):
    quick = {"global_batch_size": 8}
    bundle = pretrain(
        training={**quick, "epochs": 6}, optimizer={"learning_rate": 4e-3}, augmentation=QUIET
    )

    def tune(name, what, *, epochs=3, learning_rate=6e-3):
        job = make_job(
            name,
            splits=shifted_splits,
            fine_tune={"init_from": str(bundle), "what": what},
            training={**quick, "epochs": epochs},
            optimizer={"learning_rate": learning_rate},
            augmentation=QUIET,
        )
        return run_job(job)[-1]

    before = tune("before", "head", epochs=1, learning_rate=1e-9)
    assert before["val_error_median_mm"] > 60.0
    for what in PARTS:
        after = tune(what, what)
        assert after["val_error_median_mm"] < 0.9 * before["val_error_median_mm"], what
        assert after["val_nll"] < before["val_nll"] - 0.5, what


def test_what_a_run_notes_is_kept_once(tmp_path):
    assert read_notes(tmp_path) == []
    add_notes(tmp_path, [])
    assert not any(tmp_path.iterdir())
    add_notes(tmp_path, ["first", "second"])
    add_notes(tmp_path, ["second", "third"])
    assert read_notes(tmp_path) == ["first", "second", "third"]
    (tmp_path / "notes.json").write_text("[")
    assert read_notes(tmp_path) == []
