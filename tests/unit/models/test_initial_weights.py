import copy
import dataclasses
import shutil

import pytest
import torch
from torch import nn

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.errors import ConfigError, DatasetError, ModelNotFoundError
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.bundle import load_bundle, read_bundle_config
from gerbil_tune.models.initial_weights import (
    LoadedWeights,
    Unfitting,
    load_initial_weights,
    load_what_fits,
)
from gerbil_tune.models.localizer import Localizer
from gerbil_tune.models.low_rank import add_low_rank_changes

CORNERS_MM = tuple((x, y, 200.0) for x in (-286.0, 286.0) for y in (-178.0, 178.0))
SITE = RecordingSetup(4, 125_000.0, (572.0, 356.0), CORNERS_MM)
LARGER_ARENA = dataclasses.replace(SITE, arena_mm=(600.0, 400.0))
SIX_MICROPHONES = dataclasses.replace(
    SITE, num_microphones=6, microphones_mm=(*CORNERS_MM, (0.0, -178.0, 200.0), (0.0, 178.0, 200.0))
)
TWO_KEYPOINTS = dataclasses.replace(SITE, keypoints=("nose", "head"))


def network(hidden=3, outputs=2):
    return nn.Sequential(nn.Linear(4, hidden), nn.BatchNorm1d(hidden), nn.Linear(hidden, outputs))


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_everything_fits_the_same_network():
    there, here = network(), network()
    done = load_what_fits(here, there.state_dict())
    assert done == LoadedWeights(tuple(there.state_dict()), (), ())
    assert all(torch.equal(state(here)[name], value) for name, value in state(there).items())


def test_what_does_not_fit_stays_as_it_was_and_is_named():
    there, here = network(outputs=5), network(outputs=2)
    before = state(here)
    done = load_what_fits(here, {**there.state_dict(), "3.gain": torch.zeros(7)})
    assert done.reinitialized == (
        Unfitting("2.weight", (5, 3), (2, 3)),
        Unfitting("2.bias", (5,), (2,)),
    )
    assert done.unused == (Unfitting("3.gain", (7,), None),)
    for name, value in state(here).items():
        expected = before[name] if name.startswith("2.") else there.state_dict()[name]
        assert torch.equal(value, expected)


def test_what_the_trained_model_has_not_is_named_too():
    weights = network().state_dict()
    del weights["0.bias"]
    done = load_what_fits(network(), weights)
    assert [str(tensor) for tensor in done.reinitialized] == [
        "0.bias, absent in the trained model, (3,) here"
    ]


def test_if_nothing_fits_it_says_so():
    here = network(hidden=3)
    before = state(here)
    with pytest.raises(ConfigError, match="none of the trained model's 2 tensors fits any of this"):
        load_what_fits(here, nn.Linear(7, 7).state_dict())
    assert all(torch.equal(value, before[name]) for name, value in state(here).items())


def test_low_rank_changes_stay_on_top():
    there, here = network(), network()
    add_low_rank_changes(here, 2, whole=here[2])
    change = here[0].parametrizations.weight[0]
    nn.init.normal_(change.up)
    done = load_what_fits(here, there.state_dict())
    assert set(done.loaded) == set(there.state_dict())
    expected = there[0].weight + change(torch.zeros(3, 4))
    torch.testing.assert_close(here[0].weight, expected)


@pytest.fixture(scope="module")
def bundle(make_bundle):
    return make_bundle(SITE, seed=1)


@pytest.fixture
def begin(bundle):
    """A model that begins with the bundle, what is told, and the model before."""

    def begin(setup=SITE, fine_tune=None, **sections):
        own, _ = read_bundle_config(bundle)
        chosen = {"init_from": str(bundle), **(fine_tune or {})}
        tree = {**own.model_dump(), **sections, "fine_tune": chosen}
        config = ExperimentConfig.model_validate(tree)
        model = Localizer(config, setup)
        before = copy.deepcopy(model)
        return model, load_initial_weights(model, config, setup), before

    return begin


def test_a_trained_model_is_taken_as_it_is(begin, bundle):
    model, notes, _ = begin()
    there = load_bundle(bundle)
    for name, value in there.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    num_tensors = len(model.state_dict())
    assert notes == [
        f"training begins with the weights of {bundle} (SHA-256 {there.fingerprint[:12]}...): "
        f"{num_tensors} of {num_tensors} tensors"
    ]


def test_without_a_trained_model_nothing_is_done(begin):
    model, notes, before = begin(fine_tune={"init_from": None})
    assert notes == []
    assert all(torch.equal(v, before.state_dict()[k]) for k, v in model.state_dict().items())


def test_with_other_microphones_the_first_layer_begins_anew(begin, bundle):
    """Six make 15 pairs in place of 6."""
    model, notes, before = begin(SIX_MICROPHONES)
    anew = [note.removeprefix("initialized anew: ") for note in notes if "anew" in note]
    (name,) = [note.partition(",")[0] for note in anew]
    there = load_bundle(bundle).model.state_dict()
    shapes = (tuple(there[name].shape), tuple(model.state_dict()[name].shape))
    assert anew == [f"{name}, {shapes[0]} in the trained model, {shapes[1]} here"]
    assert (shapes[0][1], shapes[1][1]) == (6, 15)
    assert torch.equal(model.state_dict()[name], before.state_dict()[name])
    for other in there.keys() - {name}:
        assert torch.equal(model.state_dict()[other], there[other])


def test_with_other_keypoints_the_readout_begins_anew(begin):
    model, notes, before = begin(TWO_KEYPOINTS)
    anew = [note for note in notes if note.startswith("initialized anew: network.readout.")]
    assert len(anew) == 2
    assert torch.equal(model.network.readout.bias, before.network.readout.bias)
    assert any("the list of keypoints was ['nose'] for the trained" in note for note in notes)


@pytest.mark.parametrize("what", ["head", "low-rank"])
def test_what_begins_anew_is_not_frozen(begin, what):
    begin(TWO_KEYPOINTS, {"what": what})  # the readout is trained whole
    with pytest.raises(ConfigError, match=f"fine_tune/what {what} keeps .* train with .*what=all"):
        begin(SIX_MICROPHONES, {"what": what})


def test_a_change_of_units_is_told(begin):
    _, notes, _ = begin(LARGER_ARENA)
    assert notes[1:] == [
        "warning: one unit of the network, in mm, was [286.0, 286.0] for the trained model and is "
        "[300.0, 300.0] here; what its weights have learned may not hold"
    ]
    in_mm = {"location": {"kind": "gain", "gain": 0.01}}
    _, notes, _ = begin(SITE, scaling=in_mm)
    told = "\n".join(notes)
    assert "was [286.0, 286.0] for the trained model and is [100.0, 100.0] here" in told
    assert "scaling/location/kind was isotropic for the trained model and is gain here" in told
    assert "scaling/location/gain was absent for the trained model and is 0.01 here" in told


def test_there_must_be_a_whole_model(begin, bundle, tmp_path):
    with pytest.raises(ModelNotFoundError, match="is not a model bundle"):
        begin(fine_tune={"init_from": str(tmp_path / "nowhere")})
    shutil.copytree(bundle, tmp_path / "damaged")
    (tmp_path / "damaged/best_weights.safetensors").write_bytes(b"damaged")
    with pytest.raises(DatasetError, match=r"best_weights.safetensors cannot be read"):
        begin(fine_tune={"init_from": str(tmp_path / "damaged")})
