"""Letters: B batch, P pairs, L lags."""

import dataclasses

import numpy as np
import pytest
import torch

from gerbil_tune.config.augmentation import AugmentationConfig
from gerbil_tune.data.events import open_events
from gerbil_tune.models.features.extractor import FeatureExtractor
from gerbil_tune.models.localizer import Localizer
from gerbil_tune.training.feature_bank import features_are_constant
from gerbil_tune.training.session import InProcessSession
from gerbil_tune.training.steps import (
    BankedSteps,
    StreamedSteps,
    ValidationSet,
    make_training_steps,
)

CPU = torch.device("cpu")
CONSTANT = {
    "augmentation": {"noise_prob": 0.0, "mirror_prob": 0.0, "polarity_prob": 0.0},
    "data": {"crop_length": 1000},
}


def session(world_size=1, rank=0):
    return InProcessSession(lambda metrics: None, CPU, rank=rank, world_size=world_size)


def build(job):
    torch.manual_seed(0)
    return Localizer(job.config, job.setup)


def make_steps(kind, job, *, world_size=1, rank=0, **options):
    place = session(world_size, rank)
    return kind(job.config, job.setup, job.splits.train, build(job), place, **options)


def kind_of_steps(job):
    steps = make_training_steps(job.config, job.setup, job.splits.train, build(job), session())
    return type(steps)


@pytest.mark.parametrize("epoch", [0, 3])
@pytest.mark.parametrize("mirror_prob", [0.0, 0.5])
def test_features_from_memory_are_those_that_are_streamed(make_job, epoch, mirror_prob):
    augmentation = {**CONSTANT["augmentation"], "mirror_prob": mirror_prob}
    job = make_job(**{**CONSTANT, "augmentation": augmentation})
    banked, streamed = make_steps(BankedSteps, job), make_steps(StreamedSteps, job)
    assert banked.num_steps == streamed.num_steps == 5
    pairs = zip(banked.epoch(epoch), streamed.epoch(epoch), strict=True)
    for (from_memory, places), (computed, expected_places) in pairs:
        torch.testing.assert_close(from_memory.gcc_BPL, computed.gcc_BPL, rtol=1e-3, atol=1e-3)
        assert torch.equal(from_memory.lengths_B, computed.lengths_B)
        assert torch.equal(places, expected_places)


@pytest.mark.parametrize("kind", ["gcc-net", "srp-net"])
def test_features_from_the_cache_are_those_in_memory_and_are_computed_once(
    make_job, tmp_path, kind
):
    model = {"kind": "srp-net", "num_channels": 4} if kind == "srp-net" else {}
    job = make_job(**CONSTANT, model=model, features={"maps": {"cell_mm": 90.0}})
    in_memory = make_steps(BankedSteps, job)
    for _ in range(2):
        cached = make_steps(BankedSteps, job, feature_cache=tmp_path / "cache")
        cached.prepare(lambda: False)
        for (found, _), (expected, _) in zip(cached.epoch(0), in_memory.epoch(0), strict=True):
            name = "gcc_BPL" if kind == "gcc-net" else "maps_BFYX"
            assert torch.equal(getattr(found, name), getattr(expected, name))
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1


def test_validation_takes_features_from_the_cache(make_job, tmp_path):
    job = make_job()
    cached = dataclasses.replace(job, feature_cache=tmp_path / "cache")
    model = build(job)
    expected = [features.gcc_BPL for features, *_ in ValidationSet(model, job, session()).batches()]
    for _ in range(2):
        found = [f.gcc_BPL for f, *_ in ValidationSet(model, cached, session()).batches()]
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({}, BankedSteps),
        ({"augmentation": {"mirror_prob": 0.5, "polarity_prob": 0.5}}, BankedSteps),
        ({"augmentation": {"noise_prob": 0.1}}, StreamedSteps),
        ({"augmentation": {"mask_prob": 0.1}}, StreamedSteps),
        ({"augmentation": {"low_frequency_prob": 0.1}}, StreamedSteps),
        ({"augmentation": {"gain_prob": 0.1}}, StreamedSteps),
        ({"augmentation": {"dropout_prob": 0.1}}, StreamedSteps),
        ({"augmentation": {"shift_prob": 0.1}}, StreamedSteps),
        ({"data": {"crop_length": 700}}, StreamedSteps),
        ({"model": {"kind": "corrnet"}}, StreamedSteps),
        ({"model": {"kind": "srp-net"}}, BankedSteps),
    ],
)
def test_features_are_kept_where_they_never_change(make_job, sections, expected):
    changed = {key: {**CONSTANT.get(key, {}), **value} for key, value in sections.items()}
    job = make_job(**{**CONSTANT, **changed})
    assert kind_of_steps(job) is expected
    extractor = build(job).extractor
    assert features_are_constant(job.config, extractor, job.splits.train) == (
        expected is BankedSteps
    )


def test_no_augmentation_is_forgotten():
    """One that is new changes correlations until someone has thought about it."""
    known = {"mirror", "polarity", "noise", "mask", "low_frequency", "gain", "dropout", "shift"}
    names = [name for name in AugmentationConfig.model_fields if name.endswith("_prob")]
    assert {name.removesuffix("_prob") for name in names} == known


def test_polarity_changes_neither_correlations_nor_maps(make_job):
    job = make_job()
    extractor = FeatureExtractor(job.config, job.setup, frozenset({"gcc", "maps"}))
    audio_BTC, lengths_B = torch.randn(2, 600, 4), torch.tensor([600, 600])
    before, after = extractor(audio_BTC, lengths_B), extractor(-audio_BTC, lengths_B)
    torch.testing.assert_close(after.gcc_BPL, before.gcc_BPL)
    torch.testing.assert_close(after.maps_BFYX, before.maps_BFYX)


def everything(kind):
    """Sections with which a kind of steps does all that it can do."""
    if kind is BankedSteps:
        return {**CONSTANT, "augmentation": {"noise_prob": 0.0, "mirror_prob": 0.5}}
    kinds = ("mirror", "polarity", "gain", "noise", "low_frequency", "mask", "dropout", "shift")
    probabilities = {f"{name}_prob": 0.5 for name in kinds}
    return {"augmentation": {**probabilities, "noise_exponent": [0.0, 2.0]}}


by_kind = pytest.mark.parametrize("kind", [StreamedSteps, BankedSteps], ids=["streamed", "memory"])


@by_kind
@pytest.mark.parametrize("world_size", [2, 4])
def test_any_number_of_workers_shares_the_steps_of_one(make_job, kind, world_size):
    """Order, crops and augmentation too: what an event becomes does not depend on its worker."""
    job = make_job(**everything(kind))
    alone = list(make_steps(kind, job).epoch(1))
    parts = [
        make_steps(kind, job, world_size=world_size, rank=rank).epoch(1)
        for rank in range(world_size)
    ]
    steps = [list(step) for step in zip(*parts, strict=True)]
    for step, (features, places) in zip(steps, alone, strict=True):
        assert torch.equal(torch.cat([p for _, p in step]), places)
        assert torch.equal(torch.cat([f.lengths_B for f, _ in step]), features.lengths_B)
        gcc_BPL = torch.cat([f.gcc_BPL for f, _ in step])
        torch.testing.assert_close(gcc_BPL, features.gcc_BPL, rtol=1e-3, atol=1e-3)


@by_kind
def test_an_epoch_may_begin_at_any_step(make_job, kind):
    job = make_job(**everything(kind))
    whole = list(make_steps(kind, job).epoch(2))
    for start_step in range(len(whole) + 1):
        rest = list(make_steps(kind, job).epoch(2, start_step))
        for (found, places), (expected, wanted) in zip(rest, whole[start_step:], strict=True):
            assert torch.equal(found.gcc_BPL, expected.gcc_BPL)
            assert torch.equal(found.lengths_B, expected.lengths_B)
            assert torch.equal(places, wanted)


@by_kind
def test_epochs_differ(make_job, kind):
    steps = make_steps(kind, make_job(**everything(kind)))
    first, second = ([places for _, places in steps.epoch(epoch)] for epoch in (0, 1))
    assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("kind", ["gcc-net", "simplenet"])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_validation_events_have_one_worker_each(make_job, kind, world_size):
    conv = {"channels": [2], "kernel_sizes": [3], "downsample": [True], "dilations": [1]}
    job = make_job(model={"kind": kind, **({"conv": conv} if kind == "simplenet" else {})})
    model, locations, places = build(job), [], []
    for rank in range(world_size):
        validation = ValidationSet(model, job, session(world_size, rank))
        first, again = [list(validation.batches()) for _ in range(2)]
        for (_, locations_BKD, places_B), (_, same_BKD, same_B) in zip(first, again, strict=True):
            assert torch.equal(locations_BKD, same_BKD)
            assert places_B.tolist() == same_B.tolist()
            locations.append(locations_BKD.numpy())
            places.append(places_B)
    found_N = np.concatenate(places)
    assert sorted(found_N) == list(range(len(job.splits.validation)))
    wanted = job.splits.validation.locations_mm[found_N]
    np.testing.assert_array_equal(np.concatenate(locations), wanted)


def test_more_workers_than_validation_events(make_job, easy_splits, make_event_file):
    job = make_job()
    few = open_events(make_event_file(num_events=2))
    job = dataclasses.replace(job, splits=dataclasses.replace(easy_splits, validation=few))
    counts = [
        sum(len(x) for *_, x in ValidationSet(build(job), job, session(3, r)).batches())
        for r in range(3)
    ]
    assert counts == [1, 1, 0]
