"""Letters: N events, B some of them."""

import numpy as np
import pytest
import torch

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.data.events import open_events
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.features.extractor import FeatureExtractor
from gerbil_tune.training import feature_bank
from gerbil_tune.training.feature_bank import FeatureBank, feature_key

CPU = torch.device("cpu")
CORNERS_MM = tuple((x, y, 100.0) for x in (-286.0, 286.0) for y in (-178.0, 178.0))
SETUP = RecordingSetup(4, 125_000.0, (572.0, 356.0), CORNERS_MM)
BASE = {
    "features": {
        "gcc": {"window_length": 256, "max_lag_ms": 0.2},
        "maps": {"window_length": 256, "cell_mm": 90.0},
    },
    "scaling": {"audio": {"kind": "channel_zscore"}},
}
NUM_EVENTS, CROP_LENGTH = 150, 500
EVERYTHING_N = np.arange(NUM_EVENTS)
USES = [{"gcc"}, {"maps"}, {"gcc", "maps"}]


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    import h5py

    generator = np.random.default_rng(0)
    lengths = generator.integers(200, 700, NUM_EVENTS)
    path = tmp_path_factory.mktemp("events") / "events.h5"
    with h5py.File(path, "w") as file:
        file["audio"] = generator.standard_normal((lengths.sum(), 4)).astype(np.float32)
        file["length_idx"] = np.concatenate([[0], np.cumsum(lengths)])
        file["locations"] = generator.uniform(-100, 100, (NUM_EVENTS, 2))
    return open_events(path)


def make_extractor(uses=("gcc", "maps")):
    return FeatureExtractor(ExperimentConfig(**BASE), SETUP, frozenset(uses))


def make_bank(events, uses=("gcc", "maps"), cache_file=None):
    return FeatureBank(
        make_extractor(uses), events, crop_length=CROP_LENGTH, device=CPU, cache_file=cache_file
    )


def everything(bank):
    features, locations = bank.get(EVERYTHING_N)
    return features.gcc_BPL, features.maps_BFYX, features.lengths_B, locations


def same(found, expected):
    return all(
        theirs is None if mine is None else torch.equal(mine, theirs)
        for mine, theirs in zip(found, expected, strict=True)
    )


def never():
    return False


@pytest.mark.parametrize("uses", USES)
def test_features_are_those_of_the_events_themselves(events, uses):
    features, locations = make_bank(events, uses).get(np.array([140, 3, 77]))
    extractor = make_extractor(uses)
    for row, event in enumerate((140, 3, 77)):
        audio = events.read(event)
        begin = max(0, (len(audio) - CROP_LENGTH) // 2)
        whole_TC = torch.from_numpy(audio.copy())[None]
        crop_TC = whole_TC[:, begin : begin + CROP_LENGTH]
        mean, sd = whole_TC.mean(1), whole_TC.std(1, correction=0)
        alone = extractor(crop_TC, torch.tensor([crop_TC.shape[1]]), mean, sd)
        assert features.lengths_B[row] == crop_TC.shape[1]
        for kind, name in {"gcc": "gcc_BPL", "maps": "maps_BFYX"}.items():
            assert (getattr(features, name) is not None) == (kind in uses)
            if kind in uses:
                found, expected = getattr(features, name)[row], getattr(alone, name)[0]
                assert getattr(features, name).is_contiguous()
                torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-3)
    np.testing.assert_array_equal(locations, events.locations_mm[[140, 3, 77]])


def test_features_do_not_depend_on_what_was_asked_for_first_nor_on_where_they_are(events, tmp_path):
    """Else a run that goes on would not be the run that was never interrupted, bit for bit."""
    banks = [make_bank(events) for _ in range(3)]
    banks[1].get(np.array([5, 140, 7]))
    banks[2].get(EVERYTHING_N[::-3].copy())
    banks += [make_bank(events, cache_file=tmp_path / "features.npy") for _ in range(2)]
    banks[3].get(np.array([70]))
    banks[3].fill(never)
    banks.append(make_bank(events, cache_file=tmp_path / "features.npy"))
    first, *others = [everything(bank) for bank in banks]
    assert all(same(other, first) for other in others)


def test_a_second_run_computes_nothing(events, tmp_path):
    path = tmp_path / "features.npy"
    make_bank(events, cache_file=path).fill(never)
    bank = make_bank(events, cache_file=path)
    bank._extractor.forward = None  # whoever calls it fails
    bank.fill(never)
    assert everything(bank)[0].isfinite().all()
    assert path.stat().st_size > 4 * NUM_EVENTS * bank._row_size


def test_batches_are_all_events_in_order(events):
    bank = make_bank(events, {"gcc"})
    batches = list(bank.batches(64))
    assert [len(indices) for indices, _, _ in batches] == [64, 64, 22]
    assert np.concatenate([indices for indices, _, _ in batches]).tolist() == list(EVERYTHING_N)
    assert torch.equal(torch.cat([f.gcc_BPL for _, f, _ in batches]), everything(bank)[0])


@pytest.mark.parametrize("with_cache", [False, True])
def test_asked_to_stop_it_leaves_the_rest(events, tmp_path, with_cache):
    bank = make_bank(events, cache_file=tmp_path / "features.npy" if with_cache else None)
    computed, real = [], bank._compute

    def compute(first):
        computed.append(first)
        return real(first)

    bank._compute = compute
    bank.fill(lambda: len(computed) == 2)
    assert computed == [0, 64]
    assert not list(tmp_path.glob("*.npy"))
    bank.fill(never)
    assert same(everything(bank), everything(make_bank(events)))


def test_without_a_cache_that_can_be_written_features_are_in_memory(events, tmp_path, capsys):
    obstacle = tmp_path / "a file"
    obstacle.write_text("")
    bank = make_bank(events, cache_file=obstacle / "features.npy")
    bank.fill(never)
    assert "a file: cannot be used" in capsys.readouterr().err
    assert same(everything(bank), everything(make_bank(events)))


def test_no_events(events, tmp_path):
    bank = make_bank(events.subset([]), cache_file=tmp_path / "features.npy")
    bank.fill(never)
    assert list(bank.batches(8)) == []


@pytest.mark.parametrize("uses", USES)
def test_room_is_reckoned_from_the_shapes(events, monkeypatch, uses):
    num_bytes = sum(
        x[0].numel() * 4 for x in everything(make_bank(events, uses))[:2] if x is not None
    )
    monkeypatch.setattr(feature_bank, "_MAX_BYTES", NUM_EVENTS * num_bytes)
    assert FeatureBank.fits(make_extractor(uses), events)
    monkeypatch.setattr(feature_bank, "_MAX_BYTES", NUM_EVENTS * num_bytes - 1)
    assert not FeatureBank.fits(make_extractor(uses), events)


def key(setup=SETUP, data="abc", crop_length=500, **sections):
    return feature_key(ExperimentConfig(**sections), setup, data, crop_length)


def test_key_changes_with_what_determines_features_and_with_nothing_else():
    other = RecordingSetup(4, 125_000.0, (572.0, 356.0), CORNERS_MM[::-1])
    scaled = {"scaling": {"audio": {"kind": "channel_zscore"}}}
    different = [
        key(),
        key(setup=other),
        key(data="abd"),
        key(crop_length=501),
        key(features={"gcc": {"exponent": 0.5}}),
        key(**scaled),
        key(model={"kind": "srp-net"}),
        key(model={"kind": "srp-net"}, features={"maps": {"cell_mm": 20.0}}),
    ]
    assert len(set(different)) == len(different)
    assert all(len(found) == 64 for found in different)
    alike = [
        key(features={"maps": {"cell_mm": 20.0}}),  # gcc-net does not use maps
        key(scaling={"audio": {"kind": "gain", "gain": 10.0}}),
        key(model={"kind": "gcc-net", "lags": {"hidden": 7}}),
        key(training={"seed": 9}),
    ]
    assert set(alike) == {key()}
