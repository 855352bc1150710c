"""From a predecessor's config and weights to predictions, by the command line."""

import hashlib
import json

import h5py
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from gerbil_tune.cli.app import app
from gerbil_tune.errors import ConfigError, DatasetError
from gerbil_tune.models.bundle import load_bundle, read_bundle_config
from gerbil_tune.models.ensemble import Ensemble
from tests.unit.models.legacy.predecessors import (
    CORR_OPTIONS,
    CROP_LENGTH,
    NETWORKS,
    WAVENET_OPTIONS,
    config,
    corr_shapes,
    golden_input_BTC,
    save_run,
    simple_shapes,
    state_dict,
    wavenet_shapes,
)

VOCAL_NAME = "VocalocatorSimpleNetwork"
ARENA_MM = (572.0, 366.0)


def run(*words):
    done = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture
def run_import(tmp_path):
    def run_import(path, *words):
        """Import into trained_models; return its new folder and what was said."""
        root = tmp_path / "trained_models"
        before = set(root.rglob("provenance.json"))
        done = run("import", path, "--save-path", root, *words)
        new = {p.parent for p in set(root.rglob("provenance.json")) - before}
        (folder,) = {p.parents[1] if p.parent.name == "members" else p for p in new}
        return folder, done

    return run_import


def simple_run(folder, *, phase=0.0, **options):
    tree = config(VOCAL_NAME, **options)
    return save_run(folder, tree, state_dict(simple_shapes(), phase=phase))


def refusal(error, *words):
    with pytest.raises(error) as raised:
        CliRunner().invoke(app, ["import", *map(str, words)], catch_exceptions=False)
    text = str(raised.value)
    assert "\n" not in text
    assert len(text) < 500
    return text


def theirs(weights, events, *, activation):
    """Raw outputs of a SimpleNetwork, written as its authors did: one event and one convolution at a time."""
    raw = []
    for event_TC in events:
        crop_TC = np.zeros((CROP_LENGTH, event_TC.shape[1]))
        crop_TC[: len(event_TC)] = event_TC[:CROP_LENGTH]
        crop_TC = (crop_TC - crop_TC.mean()) / crop_TC.std(ddof=1)
        x = torch.from_numpy(crop_TC.T[None].astype(np.float32))
        for layer, (stride, dilation) in enumerate([(1, 1), (2, 2)]):
            name = f"conv_layers.{layer}"
            signal, gate = (
                torch.nn.functional.conv1d(
                    x,
                    weights[f"{name}.{conv}.weight"],
                    weights[f"{name}.{conv}.bias"],
                    stride=stride,
                    dilation=dilation,
                )
                for conv in ("fc", "gc")
            )
            norm = [
                weights[f"{name}.batch_norm.{part}"]
                for part in ("running_mean", "running_var", "weight", "bias")
            ]
            x = torch.nn.functional.batch_norm(activation(signal) * gate.sigmoid(), *norm)
        readout = weights["coord_readout.weight"], weights["coord_readout.bias"]
        raw.append(torch.nn.functional.linear(x.mean(2), *readout)[0])
    return torch.stack(raw)


def full_cov_mm(raw_BO, units_mm):
    """Mean and covariance of GAUSSIAN_FULL_COV in mm."""
    units = torch.tensor(units_mm)
    tril = torch.zeros(len(raw_BO), 2, 2)
    tril[:, 0, 0] = torch.nn.functional.softplus(raw_BO[:, 2])
    tril[:, 1, 0] = raw_BO[:, 3]
    tril[:, 1, 1] = torch.nn.functional.softplus(raw_BO[:, 4])
    tril_mm = units[:, None] * tril
    return (raw_BO[:, :2] * units).numpy(), (tril_mm @ tril_mm.mT).numpy()


@pytest.mark.parametrize(
    ("era", "tree", "units_mm", "activation"),
    [
        (
            "gerbilizer",
            config("GerbilizerSimpleNetwork", era="gerbilizer"),
            (286.0, 183.0),
            lambda x: torch.tanh(x) + 0.05 * x,
        ),
        (
            "vocalocator-1.0",
            config(VOCAL_NAME),
            (286.0, 183.0),
            lambda x: 0.95 * torch.tanh(x) + 0.05 * x,
        ),
        (
            "vocalocator-1.1",
            config(VOCAL_NAME),
            (286.0, 286.0),
            lambda x: 0.95 * torch.tanh(x) + 0.05 * x,
        ),
    ],
)
def test_predictions_are_theirs_in_mm_from_the_centre(
    tmp_path, run_import, make_event_file, era, tree, units_mm, activation
):
    weights = state_dict(simple_shapes())
    for name in ("coord_readout.weight", "conv_layers.0.fc.weight", "conv_layers.1.fc.weight"):
        weights[name] *= 10  # so that events differ
    bundle, _ = run_import(save_run(tmp_path / "run", tree, weights), "--from", era)
    lengths = [200, CROP_LENGTH, 700, 3000]
    layout = "gerbilizer" if era == "gerbilizer" else "vocalocator"
    noise = np.random.default_rng(0).standard_normal((sum(lengths), 4))
    audio = (300 * noise + 200).astype(np.int16)  # the offset of the audio counts
    calls = make_event_file(
        "calls.h5", layout=layout, lengths=lengths, arena_mm=ARENA_MM, audio=audio, dtype=np.int16
    )
    output = tmp_path / "predictions.h5"
    run("predict", "--model", bundle, "--data", calls, "-o", output, "--workers", 0)
    events = np.split(audio.astype(np.float64), np.cumsum(lengths)[:-1])
    raw_BO = theirs(weights, events, activation=activation)
    mean_mm, covariance_mm2 = full_cov_mm(raw_BO, units_mm)
    assert np.ptp(mean_mm, axis=0).min() > 1.0
    with h5py.File(output) as file:
        np.testing.assert_allclose(file["predictions"][:], mean_mm, rtol=1e-4, atol=0.01)
        np.testing.assert_allclose(file["covariance"][:], covariance_mm2, rtol=1e-4, atol=0.1)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_can_be_imported(tmp_path, run_import, name):
    tree, era, shapes, _, expected = NETWORKS[name]
    bundle, done = run_import(save_run(tmp_path, tree, state_dict(shapes)), "--from", era)
    assert bundle == tmp_path / "trained_models/lab/00001"
    assert f"imported {bundle}, a model of {era}" in done.output
    model = load_bundle(bundle).model
    with torch.no_grad():
        raw_BO = model.network.read(golden_input_BTC().mT)
    torch.testing.assert_close(raw_BO, torch.tensor(expected), rtol=1e-5, atol=5e-7)


def test_what_is_in_the_bundle(tmp_path, run_import):
    path = simple_run(tmp_path / "run")
    torch.save(state_dict(simple_shapes(), phase=1.0), tmp_path / "run/init_weights.pt")
    bundle, _ = run_import(path, "--from", "vocalocator-1.1", "--name", "old")
    assert bundle.parent.name == "old"
    weights = {
        which: load_bundle(bundle, which).model.state_dict() for which in ("init", "best", "final")
    }
    name = "network.readout.weight"
    assert torch.equal(weights["best"][name], weights["final"][name])
    assert not torch.equal(weights["best"][name], weights["init"][name])
    loaded = load_bundle(bundle)
    assert loaded.calibration.temperature == 1.0
    assert loaded.metrics == {}
    best = path.with_name("best_weights.pt")
    provenance = loaded.provenance
    assert provenance["imported_from"] == "vocalocator-1.1"
    assert provenance["config_file"] == str(path)
    assert provenance["config_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert provenance["weights_file"] == str(best)
    assert provenance["weights_sha256"] == hashlib.sha256(best.read_bytes()).hexdigest()


def test_a_run_that_was_moved_is_found(tmp_path, run_import):
    path = simple_run(tmp_path / "run")
    tree = {**json.loads(path.read_text()), "WEIGHTS_PATH": "/gone/best_weights.pt"}
    path.write_text(json.dumps(tree))
    run_import(path, "--from", "vocalocator-1.0")


def test_settings_that_the_config_states_wrongly(tmp_path, run_import):
    words = ["--set", "data/sample_rate_hz=192000", "--set", "data/keypoints=[Nose]"]
    bundle, _ = run_import(simple_run(tmp_path), "--from", "vocalocator-1.1", *words)
    setup = read_bundle_config(bundle)[1]
    assert (setup.sample_rate_hz, setup.keypoints) == (192_000.0, ("Nose",))


def test_an_ensemble_states_the_mixture_of_its_members(tmp_path, run_import):
    first = simple_run(tmp_path / "first")
    save_run(
        tmp_path / "second",
        config("CorrSimpleNetwork", **CORR_OPTIONS),
        state_dict(corr_shapes()),
    )
    third = save_run(
        tmp_path / "third",
        config("Wavenet", **WAVENET_OPTIONS),
        state_dict(wavenet_shapes()),
    )
    tree = {
        "GENERAL": {"CONFIG_NAME": "three"},
        "ARCHITECTURE": "VocalocatorEnsemble",
        "MODEL_PARAMS": {
            "OUTPUT_TYPE": "ENSEMBLE",
            "CONSTITUENT_MODELS": [str(first), "second/config.json", json.loads(third.read_text())],
        },
    }
    path = tmp_path / "ensemble.json"
    path.write_text(json.dumps(tree))
    folder, _ = run_import(path, "--from", "vocalocator-1.1")
    assert folder == tmp_path / "trained_models/three/00001"
    assert [p.name for p in (tmp_path / "trained_models").iterdir()] == ["three"]
    loaded = load_bundle(folder)
    assert isinstance(loaded, Ensemble)
    assert [member.kind for member in loaded.members] == [
        "legacy-simplenet",
        "legacy-corrnet",
        "legacy-wavenet",
    ]
    audio_BTC = torch.randn(2, 300, 4, generator=torch.Generator().manual_seed(0))
    lengths_B = torch.tensor([300, 250])
    audio_BTC[1, 250:] = 0
    density = loaded.predict_batch(audio_BTC, lengths_B)
    place = torch.tensor([[[40.0, -20.0]], [[0.0, 10.0]]])
    parts = [member.predict_batch(audio_BTC, lengths_B) for member in loaded.members]
    log_p = torch.stack([part.log_density_BK(place) for part in parts])
    expected = log_p.logsumexp(0) - np.log(3)
    torch.testing.assert_close(density.log_density_BK(place), expected, rtol=1e-5, atol=1e-4)


def test_an_imported_model_is_calibrated_on_events_with_locations(
    tmp_path, run_import, make_event_file
):
    path = simple_run(tmp_path / "run", output="POINT")
    weights = state_dict(simple_shapes(num_outputs=2))
    torch.save(weights, tmp_path / "run/best_weights.pt")
    bundle, done = run_import(path, "--from", "vocalocator-1.1")
    assert "states no uncertainty" in done.output
    calls = make_event_file(num_events=30, arena_mm=ARENA_MM)
    index = tmp_path / "val_set.npy"
    np.save(index, np.arange(5, 25))
    calibrated, done = run_import(
        path, "--from", "vocalocator-1.1", "--data", calls, "--events", index
    )
    assert "states no uncertainty" not in done.output
    loaded = load_bundle(calibrated)
    output = tmp_path / "predictions.h5"
    run("predict", "--model", bundle, "--data", calls, "-o", output, "--workers", 0)
    with h5py.File(output) as file, h5py.File(calls) as truth:
        apart = (file["predictions"][:] - truth["locations"][:])[5:25]
    first_sd = min(ARENA_MM) / 4
    assert loaded.calibration.temperature == pytest.approx(
        np.mean(apart**2) / first_sd**2, rel=1e-4
    )
    assert loaded.calibration.conformal.num_events == 20
    error_mm = np.median(np.hypot(*apart.T))
    assert loaded.metrics["val_error_median_mm"] == pytest.approx(error_mm, rel=1e-4)


def test_it_is_registered_like_any_model(tmp_path, run_import):
    """The registry wants a data fingerprint."""
    bundle, _ = run_import(simple_run(tmp_path), "--from", "vocalocator-1.1")
    assert load_bundle(bundle).provenance["data_fingerprint"] == "unknown"


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ([], ConfigError, "say it with --from; valid: vocalocator-1.0, vocalocator-1.1"),
        (["--from", "gerbilizer"], ConfigError, "--from gerbilizer contradicts ARCHITECTURE"),
        (["--name", "a/b"], ConfigError, "the name 'a/b' cannot be that of a folder"),
        (["--events", "x.npy"], ConfigError, "--events chooses events of --data"),
        (["--weights", "gone.pt"], DatasetError, "tried: gone.pt"),
        (["--set", "model/kind=simplenet"], ConfigError, "--set model/kind cannot be changed"),
    ],
)
def test_wrong_options(tmp_path, words, error, message):
    era = [] if not words or words[0] == "--from" else ["--from", "vocalocator-1.1"]
    path = simple_run(tmp_path / "run")
    root = tmp_path / "trained_models"
    assert message in refusal(error, path, "--save-path", root, *era, *words)
    assert not root.exists()


def test_data_without_the_locations_of_the_model_are_refused(tmp_path, make_event_file):
    path = simple_run(tmp_path / "run")
    words = [path, "--from", "vocalocator-1.1", "--save-path", tmp_path / "models", "--data"]
    assert "has no locations" in refusal(
        DatasetError, *words, make_event_file("none.h5", locations=None)
    )
    assert "6 microphones" in refusal(
        DatasetError, *words, make_event_file("six.h5", num_microphones=6)
    )


def test_wrong_ensembles(tmp_path):
    members = [
        json.loads(simple_run(tmp_path / f"{width}", data={"ARENA_DIMS": [width, 366]}).read_text())
        for width in (572, 600)
    ]
    tree = {
        "ARCHITECTURE": "VocalocatorEnsemble",
        "MODEL_PARAMS": {"CONSTITUENT_MODELS": members},
    }
    path = tmp_path / "ensemble.json"
    path.write_text(json.dumps(tree))
    words = [path, "--from", "vocalocator-1.1", "--save-path", tmp_path / "models"]
    assert "is for another recording site than" in refusal(ConfigError, *words)
    weights = tmp_path / "572/best_weights.pt"
    assert "--weights cannot be used with an ensemble" in refusal(
        ConfigError, *words, "--weights", weights
    )
    assert not (tmp_path / "models").exists()
