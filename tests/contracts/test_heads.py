"""What every head promises; a new one in the registry is tested without a line here.

Letters: B batch, O raw outputs, K keypoints, D axes.
"""

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from gerbil_tune.config.heads import HeadConfig
from gerbil_tune.config.schema import LocationGain, LocationIsotropic, LocationPerAxis
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.density import JointDensity
from gerbil_tune.models.event_noise import EventNoise
from gerbil_tune.models.heads.registry import HEADS, build_head
from gerbil_tune.models.scaling import LocationScale

ARENA_MM = (560.0, 360.0, 300.0)
QUARTER_MM = 90.0
BATCH = 3
# Few cells, to be quick.
OPTIONS = {"grid": [{"cell_mm": 80.0}], "mixture": [{}, {"background": True}]}
CASES = [(kind, options) for kind in sorted(HEADS) for options in OPTIONS.get(kind, [{}])]
CONSTANT_SPREAD = {"point", "gaussian-fixed"}

every_head = pytest.mark.parametrize(
    ("kind", "options"),
    CASES,
    ids=["-".join([kind, *options]) for kind, options in CASES],
)
every_number_of_keypoints = pytest.mark.parametrize("num_keypoints", [1, 2, 3])
every_number_of_axes = pytest.mark.parametrize("num_axes", [2, 3])


def make_setup(num_keypoints=1, num_axes=2, arena_mm=ARENA_MM):
    keypoints = ("nose", "head", "tail")[:num_keypoints]
    return RecordingSetup(4, 125_000.0, arena_mm[:num_axes], keypoints=keypoints, num_axes=num_axes)


def make_head(kind, options, num_keypoints=1, num_axes=2, arena_mm=ARENA_MM):
    config = TypeAdapter(HeadConfig).validate_python({"kind": kind, **options})
    return build_head(config, make_setup(num_keypoints, num_axes, arena_mm))


def units_of(num_axes):
    return torch.tensor([280.0, 180.0, 150.0])[:num_axes]


def raw_outputs(head, batch=BATCH, scale=0.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(batch, head.num_outputs, generator=generator)


def each_keypoint(density):
    return density.marginals() if isinstance(density, JointDensity) else density


@every_head
@every_number_of_keypoints
@every_number_of_axes
def test_shapes_and_types(kind, options, num_keypoints, num_axes):
    head = make_head(kind, options, num_keypoints, num_axes)
    density = head(raw_outputs(head), units_of(num_axes))
    shape = (BATCH, num_keypoints)
    assert density.mean_mm_BKD.shape == (*shape, num_axes)
    assert density.covariance_mm2_BKDD.shape == (*shape, num_axes, num_axes)
    components = density.log_weights_BKM.shape[2]
    assert density.means_mm_BKMD.shape == (*shape, components, num_axes)
    assert density.scale_tril_mm_BKMDD.shape == (*shape, components, num_axes, num_axes)
    log_density = density.log_density_BK(torch.zeros(*shape, num_axes))
    assert log_density.shape == shape
    assert log_density.dtype == density.covariance_mm2_BKDD.dtype == torch.float32
    weight = density.log_weights_BKM.exp().sum(2)
    if density.log_background_BK is not None:
        weight = weight + density.log_background_BK.exp()
    torch.testing.assert_close(weight, torch.ones(shape))
    assert not list(head.parameters())
    assert not head.state_dict()


@every_head
@every_number_of_keypoints
@every_number_of_axes
def test_events_do_not_depend_on_one_another(kind, options, num_keypoints, num_axes):
    head, units = make_head(kind, options, num_keypoints, num_axes), units_of(num_axes)
    raw = raw_outputs(head)
    places = torch.full((BATCH, num_keypoints, num_axes), 20.0)
    together, alone = head(raw, units), head(raw[1:2], units)
    torch.testing.assert_close(
        together.log_density_BK(places)[1:2], alone.log_density_BK(places[1:2])
    )


@every_head
@every_number_of_keypoints
def test_density_integrates_to_one_over_the_plane(kind, options, num_keypoints):
    head = make_head(kind, options, num_keypoints)
    density = each_keypoint(head(raw_outputs(head, batch=1), units_of(2)))
    step_mm = 20.0
    axis = torch.arange(-1490.0, 1500.0, step_mm)
    places = torch.cartesian_prod(axis, axis)[:, None, None]
    mass = density.log_density_BK(places).double().exp().sum(0) * step_mm**2
    torch.testing.assert_close(mass, torch.ones_like(mass), rtol=1e-3, atol=0)


@every_head
@every_number_of_keypoints
@every_number_of_axes
def test_draws_have_the_stated_moments(kind, options, num_keypoints, num_axes):
    head = make_head(kind, options, num_keypoints, num_axes)
    density = head(raw_outputs(head), units_of(num_axes))
    num_draws = 2000
    draws = density.sample(num_draws, EventNoise.counted(len(density.log_weights_BKM), 1))
    covariance = density.covariance_mm2_BKDD
    apart = draws - density.mean_mm_BKD
    variance = covariance.diagonal(dim1=-2, dim2=-1)
    assert (apart.mean(0).abs() < 6 * (variance / num_draws).sqrt()).all()
    product = apart[..., :, None] * apart[..., None, :]
    assert ((product.mean(0) - covariance).abs() < 6 * product.std(0) / num_draws**0.5).all()


@every_head
@every_number_of_keypoints
@every_number_of_axes
def test_gradient_leads_to_labels_far_outside(kind, options, num_keypoints, num_axes):
    """Gerbilizer clamped the mean inside the likelihood: no gradient once it had left the arena."""
    head, units = make_head(kind, options, num_keypoints, num_axes), units_of(num_axes)
    raw = raw_outputs(head).requires_grad_()
    places = torch.tensor([5000.0, -4000.0, 3000.0])[:num_axes].expand(BATCH, num_keypoints, -1)
    loss = -head(raw, units).log_density_BK(places).sum()
    loss.backward()
    assert raw.grad.isfinite().all()
    norm = raw.grad.norm(dim=1, keepdim=True)
    assert (norm > 0).all()
    step = raw.detach() - 1e-2 * raw.grad / norm
    assert -head(step, units).log_density_BK(places).sum() < loss


@every_head
@every_number_of_keypoints
@every_number_of_axes
@pytest.mark.parametrize("scale", [0.5, 20.0])
def test_covariance_is_positive_definite(kind, options, num_keypoints, num_axes, scale):
    head = make_head(kind, options, num_keypoints, num_axes)
    density = head(raw_outputs(head, batch=20, scale=scale), units_of(num_axes))
    np.linalg.cholesky(density.covariance_mm2_BKDD.double().numpy())


@every_head
@every_number_of_keypoints
@every_number_of_axes
def test_first_density_is_wide_and_at_the_centre(kind, options, num_keypoints, num_axes):
    head, units = make_head(kind, options, num_keypoints, num_axes), units_of(num_axes)
    torch.manual_seed(0)
    readout = nn.Linear(7, head.num_outputs)
    weights = readout.weight.detach().clone()
    head.initialize_readout(readout, QUARTER_MM / units)
    factor = readout.weight.detach() / weights
    assert ((factor > 0) & (factor < 0.5)).all()
    density = head(readout(torch.zeros(1, 7)), units)
    torch.testing.assert_close(
        density.mean_mm_BKD[..., :2], torch.zeros(1, num_keypoints, 2), rtol=0, atol=1e-3
    )
    sd_mm = density.covariance_mm2_BKDD.diagonal(dim1=-2, dim2=-1).sqrt()
    lowest_mm = 20.0 if kind in CONSTANT_SPREAD else 0.7 * QUARTER_MM
    assert (sd_mm > lowest_mm).all()
    assert (sd_mm < 3 * QUARTER_MM).all()
    # What networks give at first stays near.
    near = head(readout(torch.randn(20, 7)), units).mean_mm_BKD[..., :2]
    assert (near.abs() < 1.5 * QUARTER_MM).all()


@every_head
def test_raw_outputs_of_half_precision_are_read_in_float32(kind, options):
    head = make_head(kind, options, 2)
    raw = raw_outputs(head).bfloat16()
    half, full = head(raw, units_of(2)), head(raw.float(), units_of(2))
    for name in ("log_weights_BKM", "means_mm_BKMD", "scale_tril_mm_BKMDD"):
        assert getattr(half, name).dtype == torch.float32
        torch.testing.assert_close(getattr(half, name), getattr(full, name), rtol=0, atol=0)


@every_head
@every_number_of_keypoints
@every_number_of_axes
def test_temperature(kind, options, num_keypoints, num_axes):
    head = make_head(kind, options, num_keypoints, num_axes)
    density = head(raw_outputs(head), units_of(num_axes))
    places = torch.full((BATCH, num_keypoints, num_axes), 35.0)
    same = density.tempered(1.0)
    assert type(same) is type(density)
    torch.testing.assert_close(same.log_density_BK(places), density.log_density_BK(places))
    if density.is_gaussian:
        warm = density.tempered(2.5)
        torch.testing.assert_close(warm.mean_mm_BKD, density.mean_mm_BKD)
        torch.testing.assert_close(warm.covariance_mm2_BKDD, 2.5 * density.covariance_mm2_BKDD)


@every_head
def test_a_head_moves_with_the_model(kind, options):
    head = make_head(kind, options, 2).to("meta")
    raw = torch.empty(BATCH, head.num_outputs, device="meta")
    density = head(raw, units_of(2).to("meta"))
    assert density.log_density_BK(torch.empty(BATCH, 2, 2, device="meta")).device.type == "meta"


GOLDEN_ARENA_MM = (572.0, 366.0)
GOLDEN_RAW = [0.25, -0.5, -1.0, 0.3, 0.2]
# Log density at the network's (0.1, -0.2).
GOLDEN = {
    "gaussian-full": (5, -0.720816),
    "gaussian-joint": (5, -0.720816),
    "gaussian-diagonal": (4, -0.696043),
    "gaussian-spherical": (3, -0.0896466),
}
SCALINGS = [LocationIsotropic(), LocationPerAxis(), LocationGain(gain=0.004)]


def golden_units(scaling):
    return LocationScale(scaling, make_setup(arena_mm=GOLDEN_ARENA_MM)).mm_per_unit_D


def read_golden(kind, scaling):
    units = golden_units(scaling)
    head = make_head(kind, {"min_sd_mm": 1e-9}, arena_mm=GOLDEN_ARENA_MM)
    return head(torch.tensor([GOLDEN_RAW[: head.num_outputs]]), units)


@pytest.mark.parametrize("kind", GOLDEN)
@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda scaling: scaling.kind)
def test_predecessors_golden_log_densities(kind, scaling):
    num_outputs, golden = GOLDEN[kind]
    assert make_head(kind, {}).num_outputs == num_outputs
    units = golden_units(scaling)
    place = (torch.tensor([0.1, -0.2]) * units)[None, None]
    found = read_golden(kind, scaling).log_density_BK(place)
    expected = golden - units.log().sum()
    torch.testing.assert_close(found, expected.reshape(1, 1), rtol=0, atol=2e-5)


def test_vocalocators_golden_moments():
    density = read_golden("gaussian-full", LocationIsotropic())
    torch.testing.assert_close(density.mean_mm_BKD, torch.tensor([[[71.5, -143.0]]]))
    covariance = torch.tensor([[[[8026.877, 7687.066], [7687.066, 59467.79]]]])
    torch.testing.assert_close(density.covariance_mm2_BKDD, covariance, rtol=1e-5, atol=0)


def test_gerbilizers_golden_moments():
    """Its mean is (357.5, 91.5) mm from the corner."""
    density = read_golden("gaussian-full", LocationPerAxis())
    from_corner = density.mean_mm_BKD + torch.tensor(GOLDEN_ARENA_MM) / 2
    torch.testing.assert_close(from_corner, torch.tensor([[[357.5, 91.5]]]), rtol=1e-6, atol=0)
    covariance = torch.tensor([[[[8026.877, 4918.647], [4918.647, 24347.363]]]])
    torch.testing.assert_close(density.covariance_mm2_BKDD, covariance, rtol=1e-5, atol=0)


def test_location_gain_is_units_over_millimetres():
    torch.testing.assert_close(golden_units(LocationGain(gain=0.004)), torch.full((2,), 250.0))
