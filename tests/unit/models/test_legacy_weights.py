"""Files of weights that Gerbilizer and vocalocator left, the wrong ones too."""

import json
import re
from pathlib import Path

import pytest
import torch

from gerbil_tune.config.legacy_checkpoint import describe_network, read_legacy_config
from gerbil_tune.errors import DatasetError
from gerbil_tune.models.legacy_weights import (
    find_weights,
    load_legacy_model,
    read_state_dict,
    weights_beside,
)
from tests.unit.models.legacy.predecessors import (
    config,
    save_run,
    simple_shapes,
    state_dict,
)

VOCAL_NAME = "VocalocatorSimpleNetwork"


def load(folder, weights, tree=None):
    path = save_run(folder, tree or config(VOCAL_NAME), weights)
    network = describe_network(read_legacy_config(path), "vocalocator-1.1", "lab")
    return load_legacy_model(network, path.with_name("best_weights.pt"))


def refusal(call, *arguments):
    with pytest.raises(DatasetError) as error:
        call(*arguments)
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 500
    return text


def test_signal_and_gate_become_one_convolution(tmp_path):
    weights = state_dict(simple_shapes())
    network = load(tmp_path, weights).network
    first = network.layers[0]
    expected = torch.cat([weights["conv_layers.0.fc.weight"], weights["conv_layers.0.gc.weight"]])
    assert torch.equal(first.conv.weight, expected)
    assert torch.equal(first.norm.running_var, weights["conv_layers.0.batch_norm.running_var"])
    assert torch.equal(network.readout.bias, weights["coord_readout.bias"])


def test_weights_without_batch_norm(tmp_path):
    tree = config(VOCAL_NAME, USE_BATCH_NORM=False)
    network = load(tmp_path, state_dict(simple_shapes(batch_norm=False)), tree).network
    assert not list(network.buffers())


def test_numbers_that_they_did_not_have_are_constant(tmp_path):
    kinds = ["GAUSSIAN_SPHERICAL_COV", "UNIFORM"]
    tree = config(VOCAL_NAME, output="MDN", CONSTITUENT_DISTRIBUTIONS=kinds)
    weights = state_dict(simple_shapes(num_outputs=5))
    readout = load(tmp_path, weights, tree).network.readout
    rows = [0, 1, 2, None, 2, 3, 4]  # means, triangle 00 10 11, and the two logits
    for place, row in enumerate(rows):
        weight = 0 if row is None else weights["coord_readout.weight"][row]
        bias = 0 if row is None else weights["coord_readout.bias"][row]
        assert (readout.weight[place] == weight).all()
        assert readout.bias[place] == bias


def test_weights_are_read_in_half_precision_too(tmp_path):
    weights = {name: tensor.half() for name, tensor in state_dict(simple_shapes()).items()}
    assert load(tmp_path, weights).network.readout.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda weights: weights.pop("conv_layers.1.gc.bias"),
            "has no conv_layers.1.gc.bias, which the network of its config has",
        ),
        (
            lambda weights: weights.update({"conv_layers.2.fc.bias": torch.zeros(3)}),
            "has conv_layers.2.fc.bias, which the network of its config has not",
        ),
        (
            lambda weights: weights.update({"conv_layers.0.fc.weight": torch.zeros(4, 8, 5)}),
            "conv_layers.0.fc.weight must be of shape [4, 4, 5] by its config, but is of [4, 8, 5]",
        ),
        (
            lambda weights: weights.update({"coord_readout.bias": torch.zeros(2)}),
            "coord_readout.bias must be of shape [5] by its config, but is of [2]",
        ),
    ],
)
def test_weights_of_another_config_are_refused(tmp_path, change, message):
    weights = state_dict(simple_shapes())
    change(weights)
    text = refusal(load, tmp_path, weights)
    assert message in text
    assert str(tmp_path / "best_weights.pt") in text


def save(path, content):
    torch.save(content, path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: save(path, {"a": Path("x")}), "or holds more than tensors"),
        (lambda path: save(path, [torch.zeros(2)]), "must hold a state_dict, .* but holds list"),
        (lambda path: save(path, {"epoch": 3}), "must hold a state_dict, .* but holds dict"),
        (lambda path: path.write_bytes(b"PK\x03\x04 and no more"), "cannot be read as weights"),
        (lambda path: path.write_bytes(b""), "cannot be read as weights"),
        (lambda path: path.write_text("weights"), "or holds more than tensors"),
        (lambda path: path.mkdir(), "cannot be read as weights"),
    ],
)
def test_other_files_are_refused(tmp_path, write, message):
    path = tmp_path / "weights.pt"
    write(path)
    text = refusal(read_state_dict, path)
    assert text.startswith(str(path))
    assert re.search(message, text)


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "weights.pt"
    save(path, state_dict(simple_shapes()))
    path.write_bytes(path.read_bytes()[:2000])
    assert "cannot be read as weights" in refusal(read_state_dict, path)


def config_with(folder, weights_path):
    folder.mkdir(exist_ok=True)
    path = folder / "config.json"
    tree = config(VOCAL_NAME)
    path.write_text(
        json.dumps(tree if weights_path is None else {**tree, "WEIGHTS_PATH": weights_path})
    )
    return read_legacy_config(path)


@pytest.mark.parametrize(
    ("stated", "present"),
    [
        ("deep/mine.pt", "deep/mine.pt"),  # from the working directory
        ("mine.pt", "run/mine.pt"),  # beside the config
        ("/gone/mine.pt", "run/mine.pt"),  # the run was moved
        ("/gone/mine.pt", "run/best_weights.pt"),
        (None, "run/best_weights.pt"),
    ],
)
def test_weights_are_looked_for(tmp_path, monkeypatch, stated, present):
    monkeypatch.chdir(tmp_path)
    source = config_with(tmp_path / "run", stated)
    text = refusal(find_weights, source, None)
    assert f"tried: {stated or tmp_path / 'run/best_weights.pt'}" in text
    assert str(tmp_path / "run/best_weights.pt") in text
    path = tmp_path / present
    path.parent.mkdir(exist_ok=True)
    path.touch()
    assert find_weights(source, None).resolve() == path


def test_weights_that_are_named_are_taken(tmp_path):
    source = config_with(tmp_path / "run", None)
    (tmp_path / "run/best_weights.pt").touch()
    named = tmp_path / "final_weights.pt"
    assert str(named) in refusal(find_weights, source, named)
    named.touch()
    assert find_weights(source, named) == named


def test_a_member_in_the_file_of_its_ensemble_has_no_weights_beside_it(tmp_path):
    members = [config(VOCAL_NAME), {**config(VOCAL_NAME), "WEIGHTS_PATH": "/gone/best_weights.pt"}]
    tree = {
        "ARCHITECTURE": "VocalocatorEnsemble",
        "MODEL_PARAMS": {"CONSTITUENT_MODELS": members},
    }
    path = save_run(tmp_path, tree, state_dict(simple_shapes()))
    first, second = read_legacy_config(path).members
    assert "tried: nowhere, for it has no WEIGHTS_PATH" in refusal(find_weights, first, None)
    assert refusal(find_weights, second, None).endswith("tried: /gone/best_weights.pt")


def test_first_and_last_weights_are_taken_from_beside_the_best(tmp_path):
    best, final = tmp_path / "best_weights.pt", tmp_path / "final_weights.pt"
    final.touch()
    assert weights_beside(best) == {"best": best, "init": best, "final": final}
