import copy

import pytest
import torch
from torch import nn

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.localizer import Localizer
from gerbil_tune.models.low_rank import (
    ALPHA,
    LowRankChange,
    add_low_rank_changes,
    merged_weights,
    unchanged_weights,
)
from gerbil_tune.models.registry import ARCHITECTURES

MICROPHONES_MM = tuple((x, y, 100.0) for x in (-286.0, 286.0) for y in (-178.0, 178.0))
SITE = RecordingSetup(4, 50_000.0, (572.0, 356.0), MICROPHONES_MM)

KINDS = {
    "linear": (lambda: nn.Linear(6, 5), (3, 6)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, stride=2), (3, 4, 11)),
    "depthwise": (lambda: nn.Conv1d(4, 4, 5, groups=4), (3, 4, 11)),
    "conv2d": (lambda: nn.Conv2d(2, 5, (3, 2)), (3, 2, 7, 8)),
}


class Net(nn.Module):
    """A layer of some kind and a readout."""

    def __init__(self, kind):
        super().__init__()
        make, self.shape = KINDS[kind]
        self.layer = make()
        self.norm = nn.BatchNorm1d(1)
        self.readout = nn.LazyLinear(2)
        self(torch.zeros(self.shape))

    def forward(self, x):
        return self.readout(self.norm(torch.tanh(self.layer(x)).flatten(1)[:, None])[:, 0])


@pytest.fixture(params=sorted(KINDS))
def plain(request):
    torch.manual_seed(3)
    return Net(request.param).eval()


def changed(plain, rank=2, *, spread=None):
    """A copy with low-rank changes, of random content if ``spread`` is given."""
    network = copy.deepcopy(plain)
    add_low_rank_changes(network, rank, whole=network.readout)
    if spread is not None:
        for change in changes_of(network):
            nn.init.normal_(change.up, std=spread)
    return network


def changes_of(network):
    return [module for module in network.modules() if isinstance(module, LowRankChange)]


def test_nothing_is_changed_at_the_start(plain):
    x = torch.randn(plain.shape)
    network = changed(plain)
    assert torch.equal(network(x), plain(x))
    assert len(changes_of(network)) == 1
    assert changes_of(network)[0].down.abs().min() > 0


def test_the_change_is_the_product_of_two_thin_matrices(plain):
    network = changed(plain, spread=1.0)
    (change,) = changes_of(network)
    difference = (network.layer.weight - plain.layer.weight).flatten(1)
    expected = ALPHA / 2 * torch.einsum("or,ri->oi", change.up, change.down)
    torch.testing.assert_close(difference, expected, atol=1e-6, rtol=1e-5)
    singular_values = torch.linalg.svdvals(difference.double())
    assert (singular_values[:2] > 1e-3).all()
    assert (singular_values[2:] < 1e-5).all()


def test_a_rank_beyond_that_of_the_weight_is_its_own():
    (change,) = changes_of(changed(Net("depthwise"), rank=100))
    assert change.up.shape == (4, 4)
    assert change.down.shape == (4, 5)


def test_merged_weights_are_those_of_a_plain_network(plain):
    network, other = changed(plain, spread=0.5), copy.deepcopy(plain)
    merged = merged_weights(network)
    assert merged.keys() == plain.state_dict().keys()
    other.load_state_dict(merged)
    x = torch.randn(plain.shape)
    assert torch.equal(other(x), network(x))
    assert not torch.equal(other(x), plain(x))
    assert not any(tensor.requires_grad for tensor in merged.values())


def test_a_plain_network_is_merged_already(plain):
    for tensors in (merged_weights(plain), unchanged_weights(plain)):
        assert tensors.keys() == plain.state_dict().keys()
        assert all(torch.equal(tensors[name], value) for name, value in plain.state_dict().items())


def test_unchanged_weights_are_where_they_were(plain):
    network = changed(plain, spread=0.5)
    tensors = unchanged_weights(network)
    assert tensors.keys() == plain.state_dict().keys()
    assert torch.equal(tensors["layer.weight"], plain.layer.weight)
    with torch.no_grad():
        difference = network.layer.weight - plain.layer.weight
        tensors["layer.weight"].fill_(2.0)
    torch.testing.assert_close(network.layer.weight.detach(), 2.0 + difference)


def test_changes_and_the_whole_layer_get_gradients_and_nothing_else(plain):
    network = changed(plain, spread=0.5)
    network(torch.randn(plain.shape)).square().sum().backward()
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    change = "layer.parametrizations.weight.0"
    assert trained == {f"{change}.down", f"{change}.up", "readout.weight", "readout.bias"}
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == (name in trained)
        assert name not in trained or parameter.grad.abs().max() > 0


def test_the_gradient_is_that_of_the_weight_through_the_product(plain):
    network, whole = changed(plain, spread=0.5), copy.deepcopy(plain)
    whole.load_state_dict(merged_weights(network))
    x = torch.randn(plain.shape)
    for each in (network, whole):
        each(x).square().sum().backward()
    (change,) = changes_of(network)
    gradient_OI = whole.layer.weight.grad.flatten(1)
    scale = ALPHA / 2
    torch.testing.assert_close(change.up.grad, scale * gradient_OI @ change.down.T)
    torch.testing.assert_close(change.down.grad, scale * change.up.T @ gradient_OI)


def test_autocast_does_not_round_the_change(plain):
    network = changed(plain, spread=0.5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weight = network.layer.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, merged_weights(network)["layer.weight"])


def test_a_copy_has_changes_of_its_own(plain):
    network = changed(plain, spread=0.5)
    other = copy.deepcopy(network)
    before = network.layer.weight.detach().clone()
    with torch.no_grad():
        changes_of(other)[0].up.zero_()
    assert torch.equal(network.layer.weight, before)
    assert torch.equal(other.layer.weight, plain.layer.weight)


@pytest.mark.parametrize(
    "kind", [kind for kind in sorted(ARCHITECTURES) if not kind.startswith("legacy-")]
)
def test_every_architecture_can_be_changed(kind):
    """Each change gets a gradient: several workers wait for that of every parameter that is trained."""
    config = ExperimentConfig.model_validate({"model": {"kind": kind}})
    torch.manual_seed(1)
    plain = Localizer(config, SITE).eval()
    model, merged = copy.deepcopy(plain), copy.deepcopy(plain)
    add_low_rank_changes(model.network, 2, whole=model.network.readout)
    audio_BTC, lengths_B = torch.randn(2, 900, 4), torch.tensor([900, 400])
    assert torch.equal(model(audio_BTC, lengths_B), plain(audio_BTC, lengths_B))
    for change in changes_of(model):
        nn.init.normal_(change.up, std=0.02)
    raw_BO = model(audio_BTC, lengths_B)
    raw_BO.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    merged.load_state_dict(merged_weights(model))
    assert torch.equal(merged(audio_BTC, lengths_B), raw_BO)
    assert not torch.equal(raw_BO, plain(audio_BTC, lengths_B))
