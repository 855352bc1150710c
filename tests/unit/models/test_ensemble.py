import json
import re
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gerbil_tune.config.schema import DataConfig, ExperimentConfig
from gerbil_tune.errors import DatasetError, ModelNotFoundError
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.bundle import load_bundle, read_setup
from gerbil_tune.models.calibrated import Calibration
from gerbil_tune.models.density import LocationDensity
from gerbil_tune.models.ensemble import (
    Ensemble,
    cut_to_middle,
    member_folders,
    save_ensemble,
)

SETUP = RecordingSetup(4, 125_000.0, (572.0, 356.0))
AUDIO_BTC = torch.randn(3, 900, 4, generator=torch.Generator().manual_seed(0))
LENGTHS_B = torch.tensor([900, 900, 900])


def save(parent, bundles, **options):
    defaults = {
        "metrics": {"val_error_median_mm": 9.5},
        "calibration": Calibration(1.25),
        "provenance": {"data_fingerprint": "d"},
    }
    return save_ensemble(parent, bundles, **{**defaults, **options})


@pytest.fixture(scope="module")
def members(make_bundle):
    return [make_bundle(SETUP, seed=seed, temperature=1.0 + seed) for seed in (0, 1, 2)]


@pytest.fixture
def folder(members, tmp_path):
    return save(tmp_path / "gerbil-locator", members)


def test_it_predicts_the_calibrated_mixture_of_its_members(folder, members):
    density = load_bundle(folder).predict_batch(AUDIO_BTC, LENGTHS_B)
    alone = [load_bundle(path).predict_batch(AUDIO_BTC, LENGTHS_B) for path in members]
    places = torch.randn(3, 1, 2, generator=torch.Generator().manual_seed(1)) * 100
    expected = LocationDensity.mixture_of(alone).tempered(1.25)
    torch.testing.assert_close(density.log_density_BK(places), expected.log_density_BK(places))
    means = torch.stack([member.mean_mm_BKD for member in alone])
    torch.testing.assert_close(density.mean_mm_BKD, means.mean(0), rtol=1e-5, atol=1e-4)


def test_folder_and_facts(folder, members):
    assert folder.name == "00001"
    assert {path.name for path in folder.iterdir()} == {
        *("ensemble.json", "members", "metrics.json", "calibration.json", "provenance.json")
    }
    ensemble = load_bundle(folder / "ensemble.json")
    assert isinstance(ensemble, Ensemble)
    assert (ensemble.path, ensemble.setup, ensemble.name) == (folder, SETUP, "gerbil-locator")
    assert ensemble.kind == "ensemble of gcc-net"
    assert ensemble.metrics == {"val_error_median_mm": 9.5}
    assert ensemble.provenance == {"data_fingerprint": "d"}
    assert ensemble.uses_statistics == load_bundle(members[0]).uses_statistics
    assert read_setup(folder) == read_setup(members[0]) == SETUP
    copies = [member.path for member in ensemble.members]
    assert copies == list(member_folders(folder))
    for copy, member in zip(copies, members, strict=True):
        assert {p.name: p.read_bytes() for p in copy.iterdir()} == {
            p.name: p.read_bytes() for p in member.iterdir()
        }


def test_fingerprint_is_that_of_members_and_their_calibration(folder, members, tmp_path):
    def fingerprint(path):
        return load_bundle(path).fingerprint

    first = fingerprint(folder)
    assert re.fullmatch("[0-9a-f]{64}", first)
    assert fingerprint(save(tmp_path / "again", members)) == first
    assert fingerprint(save(tmp_path / "fewer", members[:2])) != first
    assert fingerprint(save(tmp_path / "order", members[::-1])) != first
    calibration = folder / "members" / "01" / "calibration.json"
    calibration.write_text('{"temperature": 3.0}')
    assert fingerprint(folder) != first


def test_weights_by_name_are_those_of_all_members(folder):
    ensemble = load_bundle(folder, weights="init")
    assert [m.fingerprint for m in ensemble.members] == [
        load_bundle(m.path, weights="init").fingerprint for m in ensemble.members
    ]
    with pytest.raises(ModelNotFoundError, match="last_weights"):
        load_bundle(folder, weights="last")


def test_each_member_takes_the_crop_that_it_was_made_for(make_bundle, tmp_path):
    """A short crop beside a long one: each member answers as if it were asked alone."""
    crops = (300, 700)
    bundles = [
        make_bundle(SETUP, seed=3, data=DataConfig(evaluation_crop_length=crop)) for crop in crops
    ]
    ensemble = load_bundle(save(tmp_path, bundles, calibration=Calibration()))
    assert ensemble.crop_length == 700
    audio_BTC, lengths_B = AUDIO_BTC[:, :700].clone(), torch.tensor([700, 500, 200])
    for i, length in enumerate(lengths_B):
        audio_BTC[i, length:] = 0
    answers = []
    for bundle in map(load_bundle, bundles):
        cut, kept = cut_to_middle(audio_BTC, lengths_B, bundle.crop_length)
        answers.append(bundle.predict_batch(cut, kept))
    density = ensemble.predict_batch(audio_BTC, lengths_B)
    expected = LocationDensity.mixture_of(answers)
    torch.testing.assert_close(density.means_mm_BKMD, expected.means_mm_BKMD)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=4), st.integers(1, 14))
def test_the_middle_is_cut_as_events_are_read(lengths, crop_length):
    audio = torch.zeros(len(lengths), 12, 2, dtype=torch.int16)
    for i, length in enumerate(lengths):
        audio[i, :length] = torch.arange(1, 2 * length + 1).reshape(length, 2)
    cut, kept = cut_to_middle(audio, torch.tensor(lengths), crop_length)
    assert cut.dtype == torch.int16
    assert cut.shape[1] == min(12, crop_length)
    for i, length in enumerate(lengths):
        take = min(length, crop_length)
        first = (length - take) // 2
        assert kept[i] == take
        assert torch.equal(cut[i, :take], audio[i, first : first + take])
        assert not cut[i, take:].any()


def test_members_must_be_of_one_site(make_bundle, members, tmp_path):
    other = make_bundle(RecordingSetup(4, 125_000.0, (600.0, 356.0)))
    with pytest.raises(DatasetError, match="another recording site"):
        load_bundle(save(tmp_path, [members[0], other]))


def test_nothing_stays_of_an_ensemble_that_could_not_be_written(members, tmp_path):
    with pytest.raises(FileNotFoundError):
        save(tmp_path, [members[0], tmp_path / "gone"])
    assert not list(tmp_path.iterdir())


def change(**content):
    def damage(folder):
        known = json.loads((folder / "ensemble.json").read_text())
        (folder / "ensemble.json").write_text(json.dumps({**known, **content}))

    return damage


@pytest.mark.parametrize(
    ("damage", "error", "says"),
    [
        (change(format=2), DatasetError, "format is 2"),
        (change(members=["00"]), DatasetError, "members must be a list"),
        (change(members=["../../x", "00"]), DatasetError, "members must be a list"),
        (change(members=None), DatasetError, "members must be a list"),
        (change(members=["00", "07"]), ModelNotFoundError, "07"),
        (lambda f: (f / "ensemble.json").write_text("{"), DatasetError, "ensemble.json"),
        (lambda f: (f / "calibration.json").write_text("{}"), DatasetError, "calibration.json"),
        (lambda f: (f / "metrics.json").unlink(), DatasetError, "metrics.json"),
        (lambda f: shutil.rmtree(f / "members"), ModelNotFoundError, "members"),
    ],
)
def test_damaged_files_are_named_in_one_sentence(folder, damage, error, says):
    damage(folder)
    with pytest.raises(error, match=says) as raised:
        load_bundle(folder)
    assert "\n" not in str(raised.value)


def test_names_are_those_of_the_first_experiment(make_bundle, members, tmp_path):
    named = make_bundle(SETUP, name="other-name")
    assert load_bundle(save(tmp_path, [named, members[0]])).name == "other-name"
    assert ExperimentConfig().name == "gerbil-locator"
