import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors import SafetensorError

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.errors import DatasetError, ModelNotFoundError
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.bundle import (
    WEIGHTS,
    load_bundle,
    read_bundle_config,
    save_bundle,
    save_weights,
    weights_name,
)
from gerbil_tune.models.calibrated import Calibration

SETUP = RecordingSetup(4, 125_000.0, (572.0, 356.0))


@pytest.fixture
def weights_folder(tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    for i, which in enumerate(WEIGHTS):
        save_weights(folder / weights_name(which), {"a": torch.full((3,), float(i))})
    return folder


def save(root, weights_folder, **options):
    defaults = {
        "config": ExperimentConfig(),
        "setup": SETUP,
        "weights_folder": weights_folder,
        "metrics": {"val_error_median_mm": 12.5},
        "calibration": Calibration(1.5),
        "provenance": {"trial": 3},
    }
    return save_bundle(root, **{**defaults, **options})


def one_sentence(error):
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 500
    return text


def test_files_and_content(tmp_path, weights_folder):
    folder = save(tmp_path / "models", weights_folder)
    assert folder == tmp_path / "models" / "gerbil-locator" / "00001"
    names = {path.name for path in folder.iterdir()}
    weights = {f"{which}_weights.safetensors" for which in ("init", "best", "final")}
    assert names == weights | {
        "config.json",
        "metrics.json",
        "calibration.json",
        "provenance.json",
    }
    calibration = json.loads((folder / "calibration.json").read_text())
    assert calibration == {"temperature": 1.5, "conformal": None, "callers": None}
    assert json.loads((folder / "provenance.json").read_text()) == {"trial": 3}
    assert folder.stat().st_mode & 0o777 == 0o755
    assert read_bundle_config(folder) == (ExperimentConfig(), SETUP)


def test_numbers_follow_the_highest_and_skip_other_names(tmp_path, weights_folder):
    parent = tmp_path / "gerbil-locator"
    for name in ("00002", "00007", "notes", ".partial-x", "123"):
        (parent / name).mkdir(parents=True)
    assert save(tmp_path, weights_folder).name == "00008"
    assert save(tmp_path, weights_folder).name == "00009"


def test_numbers_go_on_after_five_digits(tmp_path, weights_folder):
    (tmp_path / "gerbil-locator" / "99999" / "x").mkdir(parents=True)
    assert [save(tmp_path, weights_folder).name for _ in range(2)] == ["100000", "100001"]


def test_concurrent_exports_get_a_number_each(tmp_path, weights_folder):
    with ThreadPoolExecutor(8) as pool:
        folders = list(
            pool.map(lambda i: save(tmp_path, weights_folder, provenance={"export": i}), range(24))
        )
    assert sorted(folder.name for folder in folders) == [f"{n:05d}" for n in range(1, 25)]
    for i, folder in enumerate(folders):
        assert json.loads((folder / "provenance.json").read_text()) == {"export": i}
    assert len(list((tmp_path / "gerbil-locator").iterdir())) == 24


def test_exact_folder(tmp_path, weights_folder):
    wanted = tmp_path / "deep" / "my-model"
    assert save(tmp_path, weights_folder, folder=wanted) == wanted
    assert (wanted / "config.json").is_file()


def test_exact_folder_is_not_overwritten(tmp_path, weights_folder):
    wanted = tmp_path / "mine"
    wanted.mkdir()
    (wanted / "thesis.txt").write_text("all of it")
    with pytest.raises(OSError, match="mine"):
        save(tmp_path, weights_folder, folder=wanted)
    assert [path.name for path in wanted.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"metrics": {"error": float("nan")}}, ValueError),
        ({"provenance": {"what": object()}}, TypeError),
        ({}, FileNotFoundError),
    ],
)
def test_nothing_stays_of_a_bundle_that_could_not_be_written(
    tmp_path, weights_folder, options, error
):
    (weights_folder / "final_weights.safetensors").unlink()
    with pytest.raises(error):
        save(tmp_path / "models", weights_folder, **options)
    assert not list((tmp_path / "models" / "gerbil-locator").iterdir())


def test_weights_are_on_the_disk_before_they_have_their_name(tmp_path, flushed):
    path = tmp_path / "best_weights.safetensors"
    save_weights(path, {"a": torch.zeros(2)})
    assert flushed == [path.with_name(f"{path.name}.partial"), tmp_path]


def test_a_bundle_is_on_the_disk_before_it_has_its_name(tmp_path, weights_folder, flushed):
    """Whoever wrote it may delete what it was made of, and then the power may fail."""
    folder = save(tmp_path / "models", weights_folder)
    *inside, parent = flushed
    assert parent == folder.parent
    (temporary,) = {path for path in inside if path.parent == parent}
    assert temporary != folder
    assert {path.name for path in inside if path != temporary} == {
        path.name for path in folder.iterdir()
    }


def test_weights_survive_a_failed_write(tmp_path):
    path = tmp_path / "best_weights.safetensors"
    save_weights(path, {"a": torch.zeros(2)})
    before = path.read_bytes()
    (tmp_path / "best_weights.safetensors.partial").mkdir()  # the place to write first is taken
    with pytest.raises((OSError, SafetensorError)):
        save_weights(path, {"a": torch.ones(2)})
    assert path.read_bytes() == before


def test_predictions_are_scaled_by_the_calibration(make_bundle):
    audio_BTC = torch.randn(3, 800, 4)
    lengths_B = torch.tensor([800, 800, 800])
    plain = load_bundle(make_bundle(SETUP)).predict_batch(audio_BTC, lengths_B)
    scaled = load_bundle(make_bundle(SETUP, temperature=2.5)).predict_batch(audio_BTC, lengths_B)
    assert torch.equal(scaled.mean_mm_BKD, plain.mean_mm_BKD)
    torch.testing.assert_close(scaled.covariance_mm2_BKDD, 2.5 * plain.covariance_mm2_BKDD)
    assert plain.mean_mm_BKD.dtype == plain.covariance_mm2_BKDD.dtype == torch.float32
    assert plain.mean_mm_BKD.shape == (3, 1, 2)


def test_config_file_and_folder_name_the_same_bundle(make_bundle):
    folder = make_bundle(SETUP)
    first, second = load_bundle(folder), load_bundle(folder / "config.json")
    assert first.path == second.path == folder
    assert first.fingerprint == second.fingerprint
    assert re.fullmatch(r"[0-9a-f]{64}", first.fingerprint)
    assert not first.model.training
    assert first.metrics == {"validation/error_mm": 100.0}


def test_fingerprint_is_that_of_the_weights(make_bundle):
    prints = {load_bundle(make_bundle(SETUP, seed=seed)).fingerprint for seed in (1, 2, 1)}
    assert len(prints) == 2


def test_weights_by_name(make_bundle):
    folder = make_bundle(SETUP)
    load_bundle(folder, weights="init")
    with pytest.raises(ModelNotFoundError, match="last_weights") as error:
        load_bundle(folder, weights="last")
    one_sentence(error)


def test_no_bundle_there(tmp_path):
    for path in (tmp_path, tmp_path / "nothing", tmp_path / "config.json"):
        with pytest.raises(ModelNotFoundError, match=r"config\.json") as error:
            load_bundle(path)
        one_sentence(error)


def change_json(name, change):
    def damage(folder):
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return damage


def cut(name, keep):
    def damage(folder):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * keep)])

    return damage


def replace(name, data):
    return lambda folder: (folder / name).write_bytes(data)


WEIGHTS_FILE = "best_weights.safetensors"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut(WEIGHTS_FILE, 0.5), WEIGHTS_FILE),
        (cut(WEIGHTS_FILE, 0.0), WEIGHTS_FILE),
        (replace(WEIGHTS_FILE, b"\x80\x04pickle" * 10), WEIGHTS_FILE),
        (
            lambda folder: save_weights(folder / WEIGHTS_FILE, {"a": torch.zeros(1)}),
            WEIGHTS_FILE,
        ),
        (cut("config.json", 0.5), "config.json"),
        (replace("config.json", b"\xff\xfe\x00"), "config.json"),
        (replace("config.json", b"[1, 2]"), "JSON object"),
        (replace("config.json", b'{"ARCHITECTURE": "x"}'), "predecessor"),
        (change_json("config.json", lambda c: c.update(format=2)), "format is 2"),
        (change_json("config.json", lambda c: c.pop("setup")), "config.json is damaged"),
        (change_json("config.json", lambda c: c.update(setup=[])), "config.json is damaged"),
        (change_json("config.json", lambda c: c.update(setup=None)), "config.json is damaged"),
        (
            change_json("config.json", lambda c: c["setup"].update(num_microphones="four")),
            "config.json is damaged",
        ),
        (
            change_json("config.json", lambda c: c["config"].update(model={"kind": "oracle"})),
            "config.json is damaged",
        ),
        (change_json("config.json", lambda c: c["setup"].update(num_microphones=5)), WEIGHTS_FILE),
        (cut("calibration.json", 0.3), "calibration.json"),
        (replace("calibration.json", b"{}"), "calibration.json"),
        (replace("calibration.json", b'{"temperature": "big"}'), "calibration.json"),
        (replace("calibration.json", b'{"temperature": -1.0}'), "calibration.json"),
        (replace("calibration.json", b'{"temperature": NaN}'), "calibration.json"),
        (lambda folder: (folder / "calibration.json").unlink(), "calibration.json"),
        (cut("metrics.json", 0.5), "metrics.json"),
        (cut("provenance.json", 0.5), "provenance.json"),
    ],
)
def test_damaged_files_are_named_in_one_sentence(make_bundle, damage, says):
    folder = make_bundle(SETUP)
    damage(folder)
    with pytest.raises(DatasetError, match=says) as error:
        load_bundle(folder)
    one_sentence(error)


def test_missing_weights(make_bundle):
    folder = make_bundle(SETUP)
    (folder / WEIGHTS_FILE).unlink()
    with pytest.raises(ModelNotFoundError, match=WEIGHTS_FILE):
        load_bundle(folder)
