"""What a predecessor's config.json means: its era, its units, its head."""

import json
import math

import pytest
import torch

from gerbil_tune.config.legacy_checkpoint import (
    ERAS,
    decide_era,
    describe_network,
    read_legacy_config,
)
from gerbil_tune.config.legacy_heads import legacy_head
from gerbil_tune.errors import ConfigError
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.localizer import read_outputs
from tests.unit.models.legacy.predecessors import CONV, config

GERBILIZER, V10, V11 = ERAS
GERBIL_NAME = "GerbilizerSimpleNetwork"
VOCAL_NAME = "VocalocatorSimpleNetwork"


@pytest.fixture
def write(tmp_path):
    def write(tree, name="config.json"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(tree if isinstance(tree, str) else json.dumps(tree))
        return path

    return write


def without(tree, *keys):
    return {**tree, "DATA": {k: v for k, v in tree["DATA"].items() if k not in keys}}


def describe(path, era=V11, overrides=()):
    return describe_network(read_legacy_config(path), era, "lab", overrides)


def one_sentence(error):
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 500
    return text


def decide(path, asked=None):
    return decide_era(read_legacy_config(path), asked)


def test_what_gerbilizer_fills_in_tells(write):
    path = write(config(GERBIL_NAME, era="gerbilizer"))
    assert decide(path) == GERBILIZER
    assert decide(path, GERBILIZER) == GERBILIZER


def test_an_old_name_in_a_config_of_june_2024_is_of_vocalocator_1_0(write):
    assert decide(write(config(GERBIL_NAME))) == V10


@pytest.mark.parametrize(
    ("tree", "possible"),
    [
        (config(VOCAL_NAME), (V10, V11)),
        (config("CorrSimpleNetwork"), (V10, V11)),
        (config("Wavenet"), (V10, V11)),
        (without(config(VOCAL_NAME), "NORMALIZE_DATA", "VOCALIZATION_DIR"), (V10, V11)),
        # A config of Gerbilizer that vocalocator was trained with, and the other way round.
        (config(VOCAL_NAME, data={"COMPUTE_XCORRS": True}), (V10, V11)),
        (config(GERBIL_NAME, data={"COMPUTE_XCORRS": True}), (GERBILIZER, V10)),
        (
            without(config(GERBIL_NAME), "NORMALIZE_DATA", "VOCALIZATION_DIR"),
            (GERBILIZER, V10),
        ),
        ({"DATA": {}}, ERAS),
    ],
)
def test_what_the_files_leave_open_is_asked_for(write, tree, possible):
    path = write(tree)
    with pytest.raises(ConfigError) as error:
        decide(path)
    assert one_sentence(error).endswith(f"say it with --from; valid: {', '.join(possible)}")
    for era in possible:
        assert decide(path, era) == era
    for era in set(ERAS) - set(possible):
        with pytest.raises(ConfigError, match=f"--from {era} contradicts "):
            decide(path, era)


def test_a_contradiction_says_what_it_contradicts(write):
    path = write(config(GERBIL_NAME, era="gerbilizer"))
    with pytest.raises(ConfigError) as error:
        decide(path, V10)
    text = one_sentence(error)
    assert f"DATA/COMPUTE_XCORRS in {path}" in text
    assert text.endswith("valid: gerbilizer")
    with pytest.raises(ConfigError, match=f"ARCHITECTURE {GERBIL_NAME} in .*config.json"):
        decide(path, V11)


def test_an_unknown_era_lists_the_known(write):
    with pytest.raises(ConfigError, match=f"--from '1.1' is unknown; valid: {', '.join(ERAS)}"):
        decide(write(config(VOCAL_NAME)), "1.1")


def test_members_tell_the_era_of_their_ensemble(write):
    member = config(GERBIL_NAME, era="gerbilizer")
    path = write(ensemble("GerbilizerEnsemble", [member, member]))
    assert decide(path) == GERBILIZER


def ensemble(name, members):
    return {"ARCHITECTURE": name, "MODEL_PARAMS": {"CONSTITUENT_MODELS": members}}


def test_json5_and_any_case_of_keys(write):
    path = write(
        "{general: {config_name: 'lab'}, // a comment\n architecture: 'vocalocatorsimplenetwork',"
        " Data: {crop_length: 4096, arena_dims: [572, 366],},"
        " model_params: {output_type: 'gaussian_full_cov', conv_num_channels: [4, 8],},}",
        "config.json5",
    )
    experiment = describe(path).experiment
    assert experiment.model.channels == (4, 8)
    assert experiment.model.crop_length == experiment.data.crop_length == 4096


@pytest.mark.parametrize("name", ["GerbilizerDenseNet", "ResnetConformer", "", 7])
def test_other_networks_are_refused_with_those_that_can_be_imported(write, name):
    with pytest.raises(ConfigError) as error:
        read_legacy_config(write({"ARCHITECTURE": name}))
    text = one_sentence(error)
    assert repr(name) in text
    for known in (
        GERBIL_NAME,
        VOCAL_NAME,
        "CorrSimpleNetwork",
        "Wavenet",
        "VocalocatorEnsemble",
    ):
        assert known in text


def test_members_are_objects_or_paths_beside_the_ensemble(write):
    first = write(config(VOCAL_NAME, data={"NUM_MICROPHONES": 6}), "first/config.json")
    lower = {key.lower(): value for key, value in config(VOCAL_NAME).items()}
    path = write(ensemble("VocalocatorEnsemble", [str(first), "first/config.json", lower]))
    read = read_legacy_config(path)
    assert [member.tree["DATA"]["NUM_MICROPHONES"] for member in read.members] == [6, 6, 4]
    assert [member.is_file for member in read.members] == [True, True, False]
    assert read.members[2].source == f"{path}: MODEL_PARAMS/CONSTITUENT_MODELS/2"


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (None, "CONSTITUENT_MODELS must be a list, but is None"),
        ([config(VOCAL_NAME)], "must be a list of two or more, but has 1"),
        (["nowhere.json", "x"], "CONSTITUENT_MODELS/0: there is no file nowhere.json"),
        ([ensemble("VocalocatorEnsemble", [])], "CONSTITUENT_MODELS/0 is an ensemble itself"),
        (
            [{"ARCHITECTURE": "Perceiver"}],
            "CONSTITUENT_MODELS/0: ARCHITECTURE 'Perceiver' cannot",
        ),
    ],
)
def test_wrong_members(write, members, message):
    with pytest.raises(ConfigError, match=message) as error:
        read_legacy_config(write(ensemble("VocalocatorEnsemble", members)))
    one_sentence(error)


def test_a_simplenetwork(write):
    experiment = describe(write(config(VOCAL_NAME, USE_BATCH_NORM=False))).experiment
    model = experiment.model
    assert (model.kind, model.activation) == ("legacy-simplenet", "vocalocator")
    assert model.channels == tuple(CONV["CONV_NUM_CHANNELS"])
    assert model.kernel_sizes == (5, 5)
    assert model.downsample == (False, True)
    assert model.dilations == (1, 2)
    assert (model.batch_norm, model.correlations) == (False, False)
    assert experiment.training.precision == "float32"
    assert experiment.scaling.audio.gain == 1.0


def test_the_beginning_of_every_event_reaches_the_network(write):
    data = describe(write(config(VOCAL_NAME))).experiment.data
    assert data.crop_length == 512
    assert data.evaluation_crop_length > 192_000 * 3600


def test_gerbilizer_activates_and_correlates_as_it_did(write):
    tree = config(GERBIL_NAME, era="gerbilizer", data={"COMPUTE_XCORRS": True})
    model = describe(write(tree), GERBILIZER).experiment.model
    assert (model.activation, model.correlations) == ("gerbilizer", True)


def test_vocalocator_ignores_compute_xcorrs(write):
    tree = config(VOCAL_NAME, data={"COMPUTE_XCORRS": True})
    assert describe(write(tree)).experiment.model.correlations is False


@pytest.mark.parametrize(
    ("era", "name", "channels", "arena_mm"),
    [
        (GERBILIZER, GERBIL_NAME, (16, 16, 16, 32, 32, 32, 64), (558.9, 355.6)),
        (V11, VOCAL_NAME, (16, 16, 32, 32, 64, 64, 128, 128, 256, 256), (572.0, 356.0)),
    ],
)
def test_what_is_left_out_is_the_programs_default(write, era, name, channels, arena_mm):
    tree = {
        "ARCHITECTURE": name,
        "DATA": {"ARENA_DIMS_UNITS": "MM"},
        "MODEL_PARAMS": {"OUTPUT_TYPE": "POINT"},
    }
    network = describe(write(tree), era)
    assert network.experiment.model.channels == channels
    assert network.experiment.model.crop_length == 8192
    assert network.setup == RecordingSetup(4, 125_000.0, arena_mm)


def test_lists_are_cut_to_the_shortest(write):
    model = describe(write(config(VOCAL_NAME, CONV_FILTER_SIZES=[9]))).experiment.model
    assert (model.channels, model.kernel_sizes) == ((4,), (9,))


def test_a_corrsimplenetwork(write):
    model = describe(write(config("CorrSimpleNetwork", CPS_NUM_LAYERS=2))).experiment.model
    assert model.kind == "legacy-corrnet"
    assert (model.correlation_length, model.hidden, model.num_layers) == (256, 1024, 2)


def test_a_wavenet(write):
    tree = config("Wavenet", XCORR_PAIRS=[[0, 1], [2, 3]], DILATION=3)
    model = describe(write(tree)).experiment.model
    assert model.kind == "legacy-wavenet"
    assert (model.num_blocks, model.channels, model.kernel_size) == (10, 64, 7)
    assert model.correlation_pairs == ((0, 1), (2, 3))
    tree = config("Wavenet", XCORR_PAIRS=None)
    assert describe(write(tree)).experiment.model.correlation_pairs == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"NUM_MICROPHONES": 1}, "DATA/NUM_MICROPHONES must be 2 or more, but is 1"),
        ({"NUM_MICROPHONES": "four"}, "DATA/NUM_MICROPHONES must be 2 or more, but is 'four'"),
        ({"NORMALIZE_DATA": False}, "DATA/NORMALIZE_DATA false cannot be imported"),
        ({"ARENA_DIMS": 572}, "DATA/ARENA_DIMS must be a list, but is 572"),
        ({"ARENA_DIMS_UNITS": "feet"}, "DATA/ARENA_DIMS_UNITS: length unit 'feet' is unknown"),
        ({"CROP_LENGTH": 0}, "data/crop_length: .* greater than 0"),
    ],
)
def test_wrong_values_of_data(write, changes, message):
    with pytest.raises(ConfigError, match=message) as error:
        describe(write(config(VOCAL_NAME, data=changes)))
    assert "config.json" in one_sentence(error)


def test_gerbilizer_needs_the_unit_of_the_arena(write):
    tree = without(config(GERBIL_NAME, era="gerbilizer"), "ARENA_DIMS_UNITS")
    with pytest.raises(ConfigError, match=r"ARENA_DIMS_UNITS is missing.* add MM or CM"):
        describe(write(tree), GERBILIZER)


def test_a_section_must_be_one(write):
    with pytest.raises(ConfigError, match=r"MODEL_PARAMS must be an object, but is \[\]"):
        describe(write({**config(VOCAL_NAME), "MODEL_PARAMS": []}))


def test_facts_that_the_config_states_wrongly_can_be_set(write):
    path = write(config(VOCAL_NAME))
    overrides = ["data/sample_rate_hz=192000", "data/keypoints=[Nose]", "training/epochs=3"]
    network = describe(path, overrides=overrides)
    assert network.setup.sample_rate_hz == 192_000
    assert network.setup.keypoints == ("Nose",)
    assert network.experiment.training.epochs == 3


@pytest.mark.parametrize("path", ["model/crop_length", "head/kind", "features/waveform/raw"])
def test_what_the_weights_determine_cannot_be_set(write, path):
    with pytest.raises(ConfigError, match=f"--set {path} cannot be changed"):
        describe(write(config(VOCAL_NAME)), overrides=[f"{path}=1"])


@pytest.mark.parametrize(
    ("nodes", "expected"), [(None, ("nose",)), ([], ("nose",)), (["Head"], ("Head",))]
)
def test_the_name_of_one_keypoint(write, nodes, expected):
    tree = config(VOCAL_NAME, data={"NODES_TO_LOAD": nodes})
    assert describe(write(tree)).setup.keypoints == expected


@pytest.mark.parametrize("output", ["GAUSSIAN_4D_ORIENTED", "GAUSSIAN_FULL_COV"])
def test_the_order_of_several_keypoints_is_asked_for(write, output):
    """vocalocator took them in the order of the data file, whatever the config says."""
    tree = config(VOCAL_NAME, output=output, data={"NODES_TO_LOAD": ["Nose", "Head"]})
    path = write(tree)
    with pytest.raises(ConfigError, match=r"say it with --set data/keypoints=\[nose") as error:
        describe(path)
    one_sentence(error)
    names = ["Head", "Nose"][: 2 if "4D" in output else 1]
    network = describe(path, overrides=[f"data/keypoints=[{','.join(names)}]"])
    assert network.setup.keypoints == tuple(names)
    with pytest.raises(ConfigError, match=rf"must name {len(names)} body point.* names a, b, c"):
        describe(path, overrides=["data/keypoints=[a,b,c]"])


def stated(path, era, raw, overrides=()):
    """What our head states where their network gave these raw numbers."""
    network = describe(path, era, overrides)
    assert len(raw) == network.head.num_outputs
    ours = [raw[row] if isinstance(row, int) else row for row in network.head.rows]
    return read_outputs(network.experiment, network.setup, torch.tensor([ours]))


def log_density_in_units(density, place, units_mm):
    """Their log p, in network units, at a place in network units."""
    location = torch.tensor([[[u * mm for u, mm in zip(place, units_mm, strict=True)]]])
    per_unit = sum(math.log(mm) for mm in units_mm)
    return float(density.log_density_BK(location)) + per_unit


# Golden values of their programs, for an arena of 572 mm by 366 mm, are of these raw outputs.
RAW = (0.25, -0.5, -1.0, 0.3, 0.2)


def test_units_of_vocalocator_1_1(write):
    density = stated(write(config(VOCAL_NAME)), V11, RAW)
    mean, covariance = density.mean_mm_BKD[0, 0], density.covariance_mm2_BKDD[0, 0]
    torch.testing.assert_close(mean, torch.tensor([71.5, -143.0]))
    expected = torch.tensor([[8026.877, 7687.066], [7687.066, 59467.79]])
    torch.testing.assert_close(covariance, expected, rtol=2e-6, atol=0)
    assert log_density_in_units(density, (0.1, -0.2), (286, 286)) == pytest.approx(
        -0.720816, abs=2e-6
    )


@pytest.mark.parametrize(
    ("era", "tree"),
    [(GERBILIZER, config(GERBIL_NAME, era="gerbilizer")), (V10, config(VOCAL_NAME))],
)
def test_units_before_vocalocator_1_1(write, era, tree):
    """Their mean, (357.5, 91.5) mm, counts from the corner."""
    density = stated(write(tree), era, RAW)
    mean, covariance = density.mean_mm_BKD[0, 0], density.covariance_mm2_BKDD[0, 0]
    torch.testing.assert_close(mean, torch.tensor([357.5 - 286, 91.5 - 183]))
    expected = torch.tensor([[8026.877, 4918.647], [4918.647, 24347.363]])
    torch.testing.assert_close(covariance, expected, rtol=2e-6, atol=0)
    assert log_density_in_units(density, (0.1, -0.2), (286, 183)) == pytest.approx(
        -0.720816, abs=2e-6
    )


@pytest.mark.parametrize(("era", "units_mm"), [(V10, (286, 183)), (V11, (286, 286))])
@pytest.mark.parametrize(
    ("output", "raw", "expected"),
    [
        ("GAUSSIAN_DIAGONAL_COV", (0.25, -0.5, -1.0, 0.3), -0.696043),
        ("GAUSSIAN_SPHERICAL_COV", (0.25, -0.5, -1.0), -0.0896466),
    ],
)
def test_densities_are_theirs_in_their_units(write, era, units_mm, output, raw, expected):
    density = stated(write(config(VOCAL_NAME, output=output)), era, raw)
    found = log_density_in_units(density, (0.1, -0.2), units_mm)
    assert found == pytest.approx(expected, abs=2e-6)


def test_an_arena_in_centimetres(write):
    data = {"ARENA_DIMS": [57.2, 36.6], "ARENA_DIMS_UNITS": "cm"}
    network = describe(write(config(VOCAL_NAME, data=data)))
    assert network.setup.arena_mm == pytest.approx((572.0, 366.0))
    (note,) = network.notes
    assert "in CM" in note


def test_an_arena_higher_than_wide(write):
    data = {"ARENA_DIMS": [400, 300, 500]}
    density = stated(write(config(VOCAL_NAME, data=data)), V11, RAW)
    torch.testing.assert_close(density.mean_mm_BKD[0, 0], torch.tensor([62.5, -125.0]))


def test_three_axes_need_three_widths_where_each_has_its_own(write):
    path = write(config(VOCAL_NAME, output="GAUSSIAN_3D_FULL_COV"))
    with pytest.raises(ConfigError, match=r"ARENA_DIMS must have 3 widths .* but has 2"):
        describe(path, V10)
    assert describe(path, V11).setup.num_axes == 3


def softplus(value):
    return math.log1p(math.exp(value))


def test_a_point_is_trained_by_squared_error(write):
    network = describe(write(config(VOCAL_NAME, output="POINT")))
    assert (network.experiment.head.kind, network.experiment.loss.kind) == ("point", "squared")


@pytest.mark.parametrize(
    ("variance", "unit", "era", "sd_mm"),
    [
        (400, "MM", V11, (20.0, 20.0)),
        (4, "cm", V10, (20.0, 20.0)),
        (0.04, "ARBITRARY", V11, (57.2, 57.2)),
        (0.04, "ARBITRARY", V10, (57.2, 36.6)),
    ],
)
def test_a_fixed_variance_is_the_one_that_is_stated(write, variance, unit, era, sd_mm):
    tree = config(
        VOCAL_NAME, output="GAUSSIAN_FIXED_VARIANCE", VARIANCE=variance, VARIANCE_UNITS=unit
    )
    density = stated(write(tree), era, (0.25, -0.5))
    found = density.covariance_mm2_BKDD[0, 0]
    expected = torch.diag(torch.tensor(sd_mm).square())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-3)
    is_converted = unit != "ARBITRARY"
    assert bool(describe(write(tree), era).notes) == is_converted


def test_a_height_independent_of_the_place(write):
    raw = (0.1, -0.2, 0.3, -0.4, 0.5, 0.6, -0.7)
    tree = config(VOCAL_NAME, output="GAUSSIAN_3D_INDEPENDENT_HEIGHT")
    density = stated(write(tree), V11, raw)
    torch.testing.assert_close(density.mean_mm_BKD[0, 0] / 286, torch.tensor([0.1, -0.2, 0.6]))
    a, b, c, z = softplus(0.3), -0.4, softplus(0.5), softplus(-0.7)
    expected = [[a * a, a * b, 0], [a * b, b * b + c * c, 0], [0, 0, z * z]]
    found = density.covariance_mm2_BKDD[0, 0] / 286**2
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("output", "num_axes", "num_keypoints"),
    [
        ("GAUSSIAN_3D_FULL_COV", 3, 1),
        ("GAUSSIAN_4D_ORIENTED", 2, 2),
        ("GAUSSIAN_6D_ORIENTED", 3, 2),
    ],
)
def test_a_full_triangle_over_all_axes(write, output, num_axes, num_keypoints):
    size = num_axes * num_keypoints
    raw = torch.linspace(-0.8, 0.9, size + size * (size + 1) // 2)
    names = ["nose", "head"][:num_keypoints]
    density = stated(
        write(config(VOCAL_NAME, output=output)),
        V11,
        raw.tolist(),
        [f"data/keypoints=[{','.join(names)}]"],
    )
    tril = torch.zeros(size, size)
    rows, columns = torch.tril_indices(size, size)
    tril[rows, columns] = raw[size:]
    diagonal = torch.nn.functional.softplus(tril.diagonal())
    tril = tril.diagonal_scatter(diagonal)
    place = torch.linspace(0.5, -0.5, size)
    theirs = torch.distributions.MultivariateNormal(raw[:size], scale_tril=tril)
    location = (286 * place).reshape(1, num_keypoints, num_axes)
    found = density.log_density_BK(location).sum() + size * math.log(286)
    torch.testing.assert_close(found, theirs.log_prob(place), rtol=1e-5, atol=1e-4)


def test_a_mixture(write):
    kinds = ["UNIFORM", "GAUSSIAN_SPHERICAL_COV", "GAUSSIAN_FULL_COV", "gaussian_diagonal_cov"]
    tree = config(VOCAL_NAME, output="MDN", CONSTITUENT_DISTRIBUTIONS=kinds)
    spherical, full = (0.1, 0.2, -1.0), (0.25, -0.5, -1.0, 0.3, 0.2)
    diagonal, logits = (-0.3, 0.0, -0.5, -1.5), (0.4, -0.2, 0.7, 0.1)
    density = stated(write(tree), V10, (*spherical, *full, *diagonal, *logits))
    place = torch.tensor([0.1, -0.2])
    normal = torch.distributions.MultivariateNormal
    trils = (
        softplus(-1.0) * torch.eye(2),
        torch.tensor([[softplus(-1.0), 0], [0.3, softplus(0.2)]]),
        torch.diag(torch.tensor([softplus(-0.5), softplus(-1.5)])),
    )
    log_p = [torch.tensor(0.25).log()]
    for raw, tril in zip((spherical, full, diagonal), trils, strict=True):
        log_p.append(normal(torch.tensor(raw[:2]), scale_tril=tril).log_prob(place))
    log_weights = torch.tensor(logits).log_softmax(0)
    expected = torch.logsumexp(log_weights + torch.stack(log_p), 0)
    found = log_density_in_units(density, place.tolist(), (286, 183))
    assert found == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize(
    ("era", "parameters", "message"),
    [
        (V11, {}, "OUTPUT_TYPE is missing; valid: POINT, .*GAUSSIAN_6D_ORIENTED.*MDN"),
        (V11, {"OUTPUT_TYPE": "LAPLACE"}, "'LAPLACE' is unknown to vocalocator-1.1"),
        (V11, {"OUTPUT_TYPE": "GAUSSIAN_2D_ORIENTED"}, "2D_ORIENTED cannot be imported"),
        (V11, {"OUTPUT_TYPE": "gaussian_3d_oriented"}, "3D_ORIENTED cannot be imported"),
        (GERBILIZER, {"OUTPUT_TYPE": "GAUSSIAN_3D_FULL_COV"}, "is unknown to gerbilizer"),
        (
            V11,
            {"OUTPUT_TYPE": "GAUSSIAN_FIXED_VARIANCE"},
            "MODEL_PARAMS/VARIANCE must be a number, but is None",
        ),
        (
            V11,
            {"OUTPUT_TYPE": "GAUSSIAN_FIXED_VARIANCE", "VARIANCE": -1},
            "VARIANCE must be a number above 0, but is -1",
        ),
        (
            V11,
            {"OUTPUT_TYPE": "GAUSSIAN_FIXED_VARIANCE", "VARIANCE": 1},
            "VARIANCE_UNITS is ''; valid: MM, CM, ARBITRARY",
        ),
        (V11, {"OUTPUT_TYPE": "MDN"}, "CONSTITUENT_DISTRIBUTIONS must be a list"),
        (
            V11,
            {"OUTPUT_TYPE": "MDN", "CONSTITUENT_DISTRIBUTIONS": ["POINT"]},
            "POINT cannot be imported; those that can: GAUSSIAN_SPHERICAL_COV",
        ),
        (
            V11,
            {"OUTPUT_TYPE": "MDN", "CONSTITUENT_DISTRIBUTIONS": ["UNIFORM"]},
            "at least one Gaussian and at most one UNIFORM",
        ),
    ],
)
def test_outputs_that_are_refused(era, parameters, message):
    with pytest.raises(ConfigError, match=message) as error:
        legacy_head(parameters, era, (572.0, 366.0), "config.json")
    assert one_sentence(error).startswith("config.json: MODEL_PARAMS/")
