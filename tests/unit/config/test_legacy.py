import json

import pytest

from gerbil_tune.config.legacy import is_legacy, legacy_data_path, load_legacy
from gerbil_tune.config.load import load_experiment
from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.errors import ConfigError

MINIMAL = {"GENERAL": {"CONFIG_NAME": "lab"}}
GERBILIZER = {
    "GENERAL": {
        "CONFIG_NAME": "gerbils",
        "DEVICE": "GPU",
        "TORCH_SEED": 11,
        "NUMPY_SEED": 12,
        "LOG_INTERVAL": 3,
        "JOB_ID": 4,
    },
    "DATA": {
        "NUM_MICROPHONES": 4,
        "SAMPLE_RATE": 125000,
        "COMPUTE_XCORRS": False,
        "BATCH_SIZE": 16,
        "CROP_LENGTH": 4096,
        "ARENA_DIMS": [55.89, 35.56],
        "ARENA_DIMS_UNITS": "CM",
        "DATAFILE_PATH": "/data/gerbils",
    },
    "ARCHITECTURE": "GerbilizerSimpleNetwork",
    "MODEL_PARAMS": {
        "OUTPUT_TYPE": "GAUSSIAN_FULL_COV",
        "CONV_NUM_CHANNELS": [8, 16, 32],
        "CONV_FILTER_SIZES": [19, 7, 39],
        "SHOULD_DOWNSAMPLE": [False, True, True],
        "CONV_DILATIONS": [1, 1, 2],
        "USE_BATCH_NORM": False,
        "OUTPUT_COV": True,
        "REGULARIZE_COV": False,
    },
    "OPTIMIZATION": {
        "NUM_EPOCHS": 7,
        "OPTIMIZER": "SGD",
        "MOMENTUM": 0.8,
        "WEIGHT_DECAY": 1e-5,
        "INITIAL_LEARNING_RATE": 0.02,
        "CLIP_GRADIENTS": True,
        "SCHEDULERS": [{"SCHEDULER_TYPE": "COSINE_ANNEALING", "MIN_LEARNING_RATE": 0.002}],
    },
    "AUGMENTATIONS": {
        "AUGMENT_DATA": True,
        "INVERSION": {"PROB": 0.25},
        "NOISE": {"MIN_SNR": 2, "MAX_SNR": 12, "PROB": 0.75},
        "MASK": {"PROB": 0.1, "MIN_LENGTH": 50, "MAX_LENGTH": 101},
    },
}
# vocalocator's sample xcorr_config_environment_1, in this project's words
VOCALOCATOR = {
    "GENERAL": {"CONFIG_NAME": "xcorr"},
    "DATA": {"NUM_MICROPHONES": 4, "ARENA_DIMS": [572, 366], "SAMPLE_RATE": 125000},
    "ARCHITECTURE": "CorrSimpleNetwork",
    "MODEL_PARAMS": {
        "OUTPUT_TYPE": "GAUSSIAN_FULL_COV",
        "CONV_NUM_CHANNELS": [128] * 4 + [256] * 4 + [512] * 2,
    },
    "OPTIMIZATION": {
        "NUM_EPOCHS": 10,
        "INITIAL_LEARNING_RATE": 0.02,
        "MOMENTUM": 0.7,
        "WEIGHT_DECAY": 1e-5,
        "CLIP_GRADIENTS": True,
    },
}


@pytest.fixture
def write(tmp_path):
    def write(tree, name="config.json"):
        path = tmp_path / name
        path.write_text(tree if isinstance(tree, str) else json.dumps(tree))
        return path

    return write


@pytest.fixture
def load(write):
    return lambda tree: load_legacy(write(tree))


@pytest.fixture
def refusal(write):
    def refusal(tree):
        path = write(tree)
        with pytest.raises(ConfigError) as error:
            load_legacy(path)
        message = str(error.value)
        assert "\n" not in message
        assert message.startswith(f"{path}: ")
        return message.removeprefix(f"{path}: ")

    return refusal


def change(path, value, tree=MINIMAL):
    """A copy of a config with one value changed or added."""
    tree = json.loads(json.dumps(tree))
    *parents, leaf = path.split("/")
    section = tree
    for key in parents:
        section = section.setdefault(key, {})
    section[leaf] = value
    return tree


def lower(value):
    if isinstance(value, dict):
        return {key.lower(): lower(inner) for key, inner in value.items()}
    return [lower(inner) for inner in value] if isinstance(value, list) else value


class TestGerbilizer:
    def test_every_setting_arrives(self, load):
        config = load(GERBILIZER)
        assert config.name == "gerbils"
        assert config.data.crop_length == 4096
        assert config.data.sample_rate_hz == 125_000
        assert config.data.arena_mm == pytest.approx((558.9, 355.6))
        assert config.scaling.audio.kind == "event_zscore"
        assert config.scaling.location.kind == "per_axis"
        assert config.model.kind == "simplenet"
        assert config.model.conv.model_dump() == {
            "channels": (8, 16, 32),
            "kernel_sizes": (19, 7, 39),
            "downsample": (False, True, True),
            "dilations": (1, 1, 2),
            "width_multiplier": 1.0,
            "normalization": "none",
        }
        assert config.head.kind == "gaussian-full"
        assert config.optimizer.model_dump() == {
            "kind": "sgd",
            "learning_rate": 0.02,
            "weight_decay": 1e-5,
            "momentum": 0.8,
        }
        assert config.lr_schedule.warmup_fraction == 0
        assert config.lr_schedule.final_fraction == pytest.approx(0.1)
        assert config.training.epochs == 7
        assert config.training.global_batch_size == 16
        assert config.training.clip_norm == 1.0
        assert config.training.seed == 11
        augmentation = config.augmentation
        assert augmentation.mirror_prob == 0
        assert augmentation.polarity_prob == 0.25
        assert (augmentation.noise_prob, augmentation.noise_snr_db) == (0.75, (2, 12))
        assert (augmentation.mask_prob, augmentation.mask_length) == (0.1, (50, 100))

    def test_lower_case_keys_mean_the_same(self, load):
        assert load(lower(GERBILIZER)) == load(GERBILIZER)

    def test_what_is_left_out_is_what_gerbilizer_would_have_taken(self, load):
        config = load(MINIMAL)
        assert config.model.conv.model_dump() == {
            "channels": (16, 16, 16, 32, 32, 32, 64),
            "kernel_sizes": (19, 7, 39, 41, 23, 29, 33),
            "downsample": (False, True, True, True, True, True, False),
            "dilations": (1,) * 7,
            "width_multiplier": 1.0,
            "normalization": "batch",
        }
        assert (config.training.epochs, config.training.global_batch_size) == (30, 32)
        assert (config.training.seed, config.training.clip_norm) == (888, None)
        assert config.data.crop_length == 8192
        assert config.data.sample_rate_hz is None, "the file says it, or is asked to"
        assert config.data.arena_mm is None
        assert (config.optimizer.kind, config.optimizer.learning_rate) == ("sgd", 5e-4)
        assert config.optimizer.momentum == 0.9
        assert config.lr_schedule.final_fraction == 0
        assert config.augmentation.polarity_prob == 0.5
        assert config.augmentation.noise_snr_db == (0, 10)
        assert config.augmentation.mask_length == (75, 124), "their upper end was exclusive"

    def test_lists_are_cut_to_the_shortest(self, load):
        config = load(change("MODEL_PARAMS/CONV_NUM_CHANNELS", [8, 8]))
        assert config.model.conv.channels == (8, 8)
        assert config.model.conv.kernel_sizes == (19, 7)

    def test_adam(self, load):
        tree = change("OPTIMIZATION", {"OPTIMIZER": "ADAM", "ADAM_BETAS": [0.5, 0.9]})
        optimizer = load(change("OPTIMIZATION/WEIGHT_DECAY", 0.1, tree)).optimizer
        assert (optimizer.kind, optimizer.betas) == ("adamw", (0.5, 0.9))
        assert optimizer.weight_decay == 0, "their Adam did not use it"

    def test_correlations_get_a_lag_axis_of_their_own(self, load):
        assert load(change("DATA/COMPUTE_XCORRS", True)).model.kind == "corrnet"

    @pytest.mark.parametrize(
        ("flag", "expected"), [({}, "batch"), ({"USE_BATCH_NORM": False}, "none")]
    )
    def test_densenet(self, load, flag, expected):
        tree = {**MINIMAL, "ARCHITECTURE": "GerbilizerDenseNet", "MODEL_PARAMS": flag}
        model = load(tree).model
        assert (model.kind, model.normalization) == ("densenet", expected)

    @pytest.mark.parametrize("name", ["gerbilizersimplenetwork", "GERBILIZERSIMPLENETWORK"])
    def test_the_case_of_an_architecture_does_not_matter(self, load, name):
        assert load(change("ARCHITECTURE", name)).model.kind == "simplenet"


class TestVocalocator:
    def test_its_sample_config(self, load):
        config = load(VOCALOCATOR)
        assert config.model.kind == "corrnet"
        assert config.model.conv.channels == (128,) * 4 + (256,) * 4 + (512,) * 2
        assert config.model.conv.kernel_sizes == (33,) * 10
        assert config.model.conv.downsample == (False, True) * 5
        assert config.data.arena_mm == (572, 366)
        assert config.training.clip_norm == 1.0
        assert config.augmentation.noise_snr_db == (3, 15)

    @pytest.mark.parametrize("name", ["VocalocatorSimpleNetwork", "corrsimplenetwork"])
    def test_what_is_left_out_is_what_vocalocator_would_have_taken(self, load, name):
        config = load(change("ARCHITECTURE", name))
        assert config.model.conv.channels == (16, 16, 32, 32, 64, 64, 128, 128, 256, 256)
        assert config.training.epochs == 50
        assert config.optimizer.learning_rate == 0.037
        assert config.optimizer.momentum == 0.7

    def test_its_nodes_are_keypoints(self, load):
        config = load(change("DATA/NODES_TO_LOAD", ["Nose", "Head"]))
        assert config.data.keypoints == ("Nose", "Head")


class TestAugmentations:
    @pytest.mark.parametrize("section", ["DATA", "AUGMENTATIONS"])
    def test_one_switch_for_all(self, load, section):
        augmentation = load(change(f"{section}/AUGMENT_DATA", False)).augmentation
        assert augmentation == ExperimentConfig().augmentation

    def test_the_switch_beside_them_wins(self, load):
        tree = change("AUGMENTATIONS/AUGMENT_DATA", True, change("DATA/AUGMENT_DATA", False))
        assert load(tree).augmentation.polarity_prob == 0.5

    @pytest.mark.parametrize("off", [None, False])
    @pytest.mark.parametrize(
        ("key", "ours"),
        [("INVERSION", "polarity_prob"), ("NOISE", "noise_prob"), ("MASK", "mask_prob")],
    )
    def test_null_or_false_switches_one_off(self, load, key, ours, off):
        augmentation = load(change(f"AUGMENTATIONS/{key}", off)).augmentation
        probs = {
            name: getattr(augmentation, name)
            for name in ("polarity_prob", "noise_prob", "mask_prob")
        }
        assert probs == {**dict.fromkeys(probs, 0.5), ours: 0}

    @pytest.mark.parametrize(("rate_hz", "cutoff_hz"), [(None, 31_250.0), (192_000, 48_000.0)])
    def test_low_frequency_noise_is_theirs(self, load, rate_hz, cutoff_hz):
        """Magnitude exp(-2 f / the highest frequency), and as strong as the event."""
        tree = change("AUGMENTATIONS/LOW_FREQ_NOISE", {}, VOCALOCATOR)
        del tree["DATA"]["SAMPLE_RATE"]
        augmentation = load(
            change("DATA/SAMPLE_RATE", rate_hz, tree) if rate_hz else tree
        ).augmentation
        assert augmentation.low_frequency_prob == 0.5
        assert augmentation.low_frequency_snr_db == (0, 0)
        assert augmentation.low_frequency_cutoff_hz == cutoff_hz

    @pytest.mark.parametrize("section", [None, False])
    def test_low_frequency_noise_is_off_unless_asked_for(self, load, section):
        for tree in (VOCALOCATOR, change("AUGMENTATIONS/LOW_FREQ_NOISE", section, VOCALOCATOR)):
            assert load(tree).augmentation.low_frequency_prob == 0
        switched_off = {"AUGMENT_DATA": False, "LOW_FREQ_NOISE": {"PROB": 1.0}}
        tree = change("AUGMENTATIONS", switched_off, VOCALOCATOR)
        assert load(tree).augmentation == ExperimentConfig().augmentation


class TestArena:
    @pytest.mark.parametrize(
        ("dims", "unit", "expected"),
        [
            ([558.9, 355.6], "MM", (558.9, 355.6)),
            ([55.89, 35.56], "CM", (558.9, 355.6)),
            ([55.89, 35.56], "cm", (558.9, 355.6)),
            ([0.615, 0.615, 0.425], "M", (615, 615, 425)),
        ],
    )
    def test_units(self, load, dims, unit, expected):
        tree = change("DATA", {"ARENA_DIMS": dims, "ARENA_DIMS_UNITS": unit})
        assert load(tree).data.arena_mm == pytest.approx(expected)

    def test_without_a_unit_it_is_millimetres(self, load):
        assert load(change("DATA/ARENA_DIMS", [572, 366])).data.arena_mm == (572, 366)


@pytest.mark.parametrize(
    ("path", "value", "what"),
    [
        ("GENERAL/CONFIG_NAME", "", "GENERAL/CONFIG_NAME is missing; it names the results folder"),
        ("GENERAL/CONFIG_NAME", "a/b", "name: string should match pattern"),
        ("GENERAL/SEED", 1, "GENERAL/SEED is not supported; supported: CONFIG_NAME, DEVICE, JOB_ID, "),
        ("DATA/VOCALIZATION_DIR", "wav", "DATA/VOCALIZATION_DIR is not supported; supported: "),
        ("TRAINING/EPOCHS", 3, "TRAINING is not a section; valid: GENERAL, DATA, MODEL_PARAMS, "),
        ("DATA", 3, "DATA must be an object, but is 3"),
        ("WEIGHTS_PATH", "best_weights.pt", "WEIGHTS_PATH names weights of a predecessor, with which "
         "training cannot begin; gerbil-tune import makes a model of them that it may name, or remove it to "
         "train from the start"),
        ("DATA/NORMALIZE_DATA", False, "DATA/NORMALIZE_DATA false is not supported; leave it out"),
        ("DATA/ARENA_DIMS_UNITS", "INCH", None),
        ("DATA/ARENA_DIMS", 572, "DATA/ARENA_DIMS must be a list, but is 572"),
        ("DATA/ARENA_DIMS", ["a", 1], "DATA/ARENA_DIMS must be a number, but is 'a'"),
        ("DATA/ARENA_DIMS", [572], "data/arena_mm: list should have at least 2 items"),
        ("DATA/BATCH_SIZE", 0, "training/global_batch_size: input should be greater than 0 (received 0)"),
        ("DATA/NODES_TO_LOAD", "nose", "data/keypoints: input should be a valid list"),
        ("ARCHITECTURE", "Wavenet", "ARCHITECTURE 'Wavenet' is not supported; supported: "
         "gerbilizersimplenetwork, vocalocatorsimplenetwork, corrsimplenetwork, gerbilizerdensenet"),
        ("MODEL_PARAMS/OUTPUT_TYPE", "MDN", "MODEL_PARAMS/OUTPUT_TYPE MDN is not supported; "
         "valid: GAUSSIAN_FULL_COV"),
        ("MODEL_PARAMS/CPS_NUM_LAYERS", 3, "MODEL_PARAMS/CPS_NUM_LAYERS is not supported; supported: "),
        ("MODEL_PARAMS/CONV_NUM_CHANNELS", 8, "MODEL_PARAMS/CONV_NUM_CHANNELS must be a list, but is 8"),
        ("MODEL_PARAMS/CONV_NUM_CHANNELS", [8.5], "model/conv/channels/0: input should be a valid integer"),
        ("OPTIMIZATION/OPTIMIZER", "LION", "OPTIMIZATION/OPTIMIZER LION is unknown; valid: SGD, ADAM"),
        ("OPTIMIZATION/NUM_EPOCHS", "5", "training/epochs: input should be a valid integer"),
        ("OPTIMIZATION/INITIAL_LEARNING_RATE", 0, "OPTIMIZATION/SCHEDULERS/0/MIN_LEARNING_RATE must be"),
        ("OPTIMIZATION/INITIAL_LEARNING_RATE", "x", "OPTIMIZATION/INITIAL_LEARNING_RATE must be a number"),
        ("OPTIMIZATION/SCHEDULERS", [], "OPTIMIZATION/SCHEDULERS must be one COSINE_ANNEALING; others are "
         "not supported"),
        ("OPTIMIZATION/SCHEDULERS", None, "OPTIMIZATION/SCHEDULERS must be a list, but is None"),
        ("OPTIMIZATION/SCHEDULERS", ["x"], "OPTIMIZATION/SCHEDULERS must be one COSINE_ANNEALING"),
        ("OPTIMIZATION/SCHEDULERS", [{"SCHEDULER_TYPE": "REDUCE_ON_PLATEAU"}],
         "OPTIMIZATION/SCHEDULERS must be one COSINE_ANNEALING"),
        ("OPTIMIZATION/SCHEDULERS", [{"scheduler_type": "COSINE_ANNEALING", "num_epochs_active": 3}],
         "OPTIMIZATION/SCHEDULERS/0/NUM_EPOCHS_ACTIVE is not supported; supported: MIN_LEARNING_RATE"),
        ("OPTIMIZATION/SCHEDULERS", [{"SCHEDULER_TYPE": "COSINE_ANNEALING", "MIN_LEARNING_RATE": 1}],
         "OPTIMIZATION/SCHEDULERS/0/MIN_LEARNING_RATE must be from 0 to INITIAL_LEARNING_RATE, which must "
         "be above 0, but they are 1 and 0.0005"),
        ("AUGMENTATIONS/PITCH", {"PROB": 0.5}, "AUGMENTATIONS/PITCH is not supported; supported: AUGMENT"),
        ("AUGMENTATIONS/LOW_FREQ_NOISE", {"MIN_SNR": 3},
         "AUGMENTATIONS/LOW_FREQ_NOISE/MIN_SNR is not supported; supported: PROB"),
        ("AUGMENTATIONS/LOW_FREQ_NOISE", 0.5, "AUGMENTATIONS/LOW_FREQ_NOISE must be an object, but is 0.5"),
        ("AUGMENTATIONS/NOISE", {"SNR": 3}, "AUGMENTATIONS/NOISE/SNR is not supported; supported: MAX_SNR"),
        ("AUGMENTATIONS/NOISE", True, "AUGMENTATIONS/NOISE must be an object, but is True"),
        ("AUGMENTATIONS/NOISE", {"MIN_SNR": 20}, "augmentation: noise_snr_db must be [low, high]"),
        ("AUGMENTATIONS/MASK", {"MAX_LENGTH": "9"},
         "AUGMENTATIONS/MASK/MAX_LENGTH must be a whole number, but is '9'"),
        ("AUGMENTATIONS/INVERSION", {"PROB": 2}, "augmentation/polarity_prob: input should be less than"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused(refusal, path, value, what):
    tree = change(path, value)
    if what is None:
        tree = change("DATA/ARENA_DIMS", [1, 2], tree)
        what = "DATA/ARENA_DIMS_UNITS: length unit 'INCH' is unknown; valid: mm, cm, m"
    assert refusal(tree).startswith(what)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("MODEL_PARAMS/CONV_NUM_CHANNELS", [1]),
        ("MODEL_PARAMS/CONV_DILATIONS", [1]),
        ("DATA/COMPUTE_XCORRS", True),
    ],
)
def test_densenet_has_no_lists_of_layers(refusal, path, value):
    message = refusal(change(path, value, change("ARCHITECTURE", "GerbilizerDenseNet")))
    assert message.startswith(f"{path} is not supported with GerbilizerDenseNet; leave it out")


def test_a_key_in_upper_and_lower_case_is_refused(refusal):
    tree = {"GENERAL": {"CONFIG_NAME": "a", "config_name": "b"}}
    assert refusal(tree) == "the key CONFIG_NAME stands twice, in upper and lower case"


def test_comments_are_json5(write):
    path = write("{GENERAL: {CONFIG_NAME: 'lab',}, // ours\n}", "config.json5")
    assert load_legacy(path).name == "lab"


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (GERBILIZER, True),
        (lower(GERBILIZER), True),
        (VOCALOCATOR, True),
        (MINIMAL, True),
        ({"DATA": {"CROP_LENGTH": 1}}, True),
        ({"general": {}}, True),
        ({}, False),
        ({"name": "x", "data": {"crop_length": 512}}, False),
        (ExperimentConfig().model_dump(mode="json"), False),
    ],
)
def test_their_configs_are_told_from_ours(write, tree, expected):
    path = write(tree)
    assert is_legacy(path) == expected
    if not expected:
        load_experiment(path)


@pytest.mark.parametrize(
    ("tree", "expected"),
    [(GERBILIZER, "/data/gerbils"), (lower(GERBILIZER), "/data/gerbils"), (MINIMAL, None)],
)
def test_where_they_looked_for_data(write, tree, expected):
    path = legacy_data_path(write(tree))
    assert (None if path is None else str(path)) == expected
