import dataclasses

import numpy as np
import pytest
import scipy.io.wavfile
import scipy.signal
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gerbil_tune.data.batches import Batch, EvaluationBatches
from gerbil_tune.data.events import open_events
from gerbil_tune.data.files.statistics import event_statistics
from gerbil_tune.data.simulate.wavs import read_wav
from gerbil_tune.data.sources import SourceSounds, _transform_size
from gerbil_tune.errors import ConfigError

RATE_HZ = 125_000


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def make_batch(responses, places=None, *, statistics=False):
    lengths = [len(response) for response in responses]
    audio = np.zeros((len(lengths), max(*lengths, 1), responses[0].shape[1]), responses[0].dtype)
    for row, response in zip(audio, responses, strict=True):
        row[: len(response)] = response
    nothing = torch.zeros(len(lengths), audio.shape[2]) if statistics else None
    places = range(len(lengths)) if places is None else places
    return Batch(
        torch.from_numpy(audio),
        torch.tensor(lengths),
        None,
        torch.tensor(list(places)),
        nothing,
        nothing,
    )


def rows(batch):
    """Audio of each event without the padding, by its place in the set."""
    return {
        int(place): audio[:length].numpy()
        for place, audio, length in zip(
            batch.indices_B, batch.audio_BTC, batch.lengths_B, strict=True
        )
    }


def expected(response, sound):
    return scipy.signal.fftconvolve(response.astype(np.float64), sound[:, None], axes=0)


def assert_same(received, right):
    assert received.shape == right.shape
    np.testing.assert_allclose(received, right, rtol=0, atol=1e-5 * np.abs(right).max())


RESPONSES = [noise(length, 3, seed=length) for length in (1, 17, 400, 64, 1000)]
SOUNDS = [noise(length, seed=length) for length in (16, 700, 2049)]


@pytest.mark.parametrize("delay", [0, 5])
def test_a_delta_as_response_gives_the_sound_delayed(delay):
    response = np.zeros((delay + 1, 2), np.float32)
    response[delay] = 0.5, -2.0
    (audio,) = rows(
        SourceSounds(SOUNDS[1:2]).render(make_batch([response]), seed=0, epoch=0)
    ).values()

    assert_same(audio[delay:], SOUNDS[1][:, None] * [0.5, -2.0])
    np.testing.assert_allclose(audio[:delay], 0.0, atol=1e-5)


def test_a_delta_as_sound_gives_the_response():
    sounds = SourceSounds([np.ones(1, np.float32)])
    audio = rows(sounds.render(make_batch(RESPONSES), seed=0, epoch=0))

    for place, response in enumerate(RESPONSES):
        assert_same(audio[place], response)


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_ragged_batches_equal_scipy(dtype):
    sounds = SourceSounds(SOUNDS)
    responses = [(1000 * response).astype(dtype) for response in RESPONSES * 4]
    batch = make_batch(responses, statistics=True)
    rendered = sounds.render(batch, seed=3, epoch=2)
    chosen = sounds.choose(batch.indices_B.numpy(), seed=3, epoch=2)
    audio = rows(rendered)

    assert set(chosen) == {0, 1, 2}
    assert rendered.audio_BTC.dtype == torch.float32
    assert rendered.audio_BTC.shape[1] == int(rendered.lengths_B.max())
    for place, response in enumerate(responses):
        right = expected(response, SOUNDS[chosen[place]])
        assert_same(audio[place], right)
        assert not rendered.audio_BTC[place, len(right) :].any()
        mean, sd = event_statistics(right)
        np.testing.assert_allclose(rendered.mean_BC[place], mean, atol=1e-5 * sd.max())
        np.testing.assert_allclose(rendered.sd_BC[place], sd, rtol=1e-5)


def test_a_batch_without_statistics_gets_none_and_keeps_the_rest():
    batch = dataclasses.replace(make_batch(RESPONSES), locations_BKD_mm=torch.zeros(5, 1, 2))
    rendered = SourceSounds(SOUNDS).render(batch, seed=0, epoch=None)

    assert rendered.mean_BC is None
    assert rendered.sd_BC is None
    assert rendered.locations_BKD_mm is batch.locations_BKD_mm
    assert rendered.indices_B is batch.indices_B


@settings(max_examples=30, deadline=None)
@given(
    order=st.permutations(range(5)),
    cut=st.integers(1, 5),
    seed=st.integers(-(2**63), 2**63),
    epoch=st.none() | st.integers(0, 10**6),
    max_samples=st.none() | st.integers(1, 3000),
)
def test_an_event_does_not_depend_on_its_batch(order, cut, seed, epoch, max_samples):
    sounds = SourceSounds(SOUNDS)
    options = {"seed": seed, "epoch": epoch, "max_samples": max_samples}
    together = rows(sounds.render(make_batch(RESPONSES), **options))
    for part in (order[:cut], order[cut:]):
        if part:
            batch = make_batch([RESPONSES[place] for place in part], part)
            for place, audio in rows(sounds.render(batch, **options)).items():
                assert_same(audio, together[place])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99), epoch=st.none() | st.integers(0, 99), length=st.integers(1, 4000))
def test_a_crop_is_a_stretch_of_the_whole(seed, epoch, length):
    sounds = SourceSounds(SOUNDS)
    whole = rows(sounds.render(make_batch(RESPONSES), seed=seed, epoch=epoch))
    rendered = sounds.render(make_batch(RESPONSES), seed=seed, epoch=epoch, max_samples=length)

    assert rendered.audio_BTC.shape[1] <= length
    for place, crop in rows(rendered).items():
        full = whole[place]
        assert len(crop) == min(len(full), length)
        starts = range(len(full) - len(crop) + 1)
        if epoch is None:
            starts = [(len(full) - len(crop)) // 2]
        assert any(
            np.allclose(crop, full[start : start + len(crop)], atol=1e-4) for start in starts
        )


def test_statistics_are_of_the_whole_event_not_of_the_crop():
    batch = make_batch(RESPONSES, statistics=True)
    sounds = SourceSounds(SOUNDS)
    whole = sounds.render(batch, seed=0, epoch=0)
    crop = sounds.render(batch, seed=0, epoch=0, max_samples=10)

    assert torch.equal(crop.mean_BC, whole.mean_BC)
    assert torch.equal(crop.sd_BC, whole.sd_BC)


def test_an_empty_response_stays_empty():
    responses = [np.zeros((0, 3), np.float32), RESPONSES[2]]
    rendered = SourceSounds(SOUNDS[:1]).render(make_batch(responses), seed=0, epoch=0)

    assert rendered.lengths_B.tolist() == [0, 415]
    assert not rendered.audio_BTC[0].any()
    alone = SourceSounds(SOUNDS).render(make_batch(responses[:1]), seed=0, epoch=None)
    assert alone.audio_BTC.shape == (1, 1, 3)


def test_choices_depend_on_seed_epoch_and_place_and_are_even():
    sounds = SourceSounds([np.ones(1, np.float32)] * 10)
    places = np.arange(20_000)
    choices = {
        key: sounds.choose(places, seed=key[0], epoch=key[1])
        for key in [(0, 0), (0, 1), (1, 0), (0, None), (1, None)]
    }
    for key, chosen in choices.items():
        counts = np.bincount(chosen, minlength=10)
        assert scipy.stats.chisquare(counts).pvalue > 1e-4
        for other, others in choices.items():
            # Independent choices of one in ten agree a tenth of the time, within five standard errors.
            assert key == other or abs(np.mean(chosen == others) - 0.1) < 0.011
    few = np.array([7, 3])
    np.testing.assert_array_equal(sounds.choose(few, seed=0, epoch=1), choices[0, 1][few])


def test_rows_are_transformed_in_parts_with_the_same_result(monkeypatch):
    sounds = SourceSounds(SOUNDS)
    right = sounds.render(make_batch(RESPONSES), seed=0, epoch=0).audio_BTC
    monkeypatch.setattr("gerbil_tune.data.sources._CHUNK_VALUES", 1)

    assert_same(
        sounds.render(make_batch(RESPONSES), seed=0, epoch=0).audio_BTC.numpy(), right.numpy()
    )


@given(st.integers(1, 10**7))
def test_transforms_are_long_enough_and_little_longer(num_samples):
    size = _transform_size(num_samples)
    assert num_samples <= size <= max(1.5 * num_samples, 2)
    while size % 2 == 0:
        size //= 2
    assert size in (1, 3)


def test_a_set_is_rendered_as_evaluation_does(make_event_file):
    events = open_events(make_event_file(num_events=6, dtype="int16"))
    sounds = SourceSounds(SOUNDS)
    right = {}
    for batch in EvaluationBatches(events, crop_length=10_000, per_worker_batch_size=4):
        right |= rows(sounds.render(batch, seed=5, epoch=None))
    seen = list(sounds.render_events(events, seed=5))

    assert [place for place, _ in seen] == list(range(6))
    for place, audio in seen:
        assert audio.dtype == np.float32
        assert_same(audio, right[place])


def test_wavs_are_resampled_reduced_to_one_channel_and_scaled(tmp_path):
    times = np.arange(4096) / RATE_HZ
    tone = np.sin(2 * np.pi * 9000 * times)
    stereo = np.stack([0.1 * tone, 0.5 * tone], axis=1)
    scipy.io.wavfile.write(tmp_path / "a.wav", RATE_HZ, (stereo * 2**15).astype(np.int16))
    scipy.io.wavfile.write(tmp_path / "b.WAV", 2 * RATE_HZ, noise(4096))
    sounds = SourceSounds.open(tmp_path, RATE_HZ)
    delta = make_batch([np.ones((1, 1), np.float32)] * 40)
    chosen = sounds.choose(np.arange(40), seed=0, epoch=0)
    audio = rows(sounds.render(delta, seed=0, epoch=0))
    a, b = audio[int(np.argmax(chosen == 0))][:, 0], audio[int(np.argmax(chosen == 1))][:, 0]

    assert len(sounds) == 2
    assert sounds.lengths.tolist() == [4096, 2048] == [len(a), len(b)]
    for sound in (a, b):
        np.testing.assert_allclose([sound.mean(), sound.std()], [0, 1], atol=1e-4)
    np.testing.assert_allclose(
        a, read_wav(tmp_path / "a.wav", RATE_HZ) * (a.max() / 0.5), atol=0.01
    )


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (None, None, "holds no .wav file"),
        ("a.wav", b"text", "cannot be read"),
        ("a.txt", b"text", "holds no .wav file"),
    ],
)
def test_a_folder_without_sounds_is_told(tmp_path, name, content, words):
    if name:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=rf"data/source_folder: .*{words}"):
        SourceSounds.open(tmp_path, RATE_HZ)


def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        SourceSounds.open(tmp_path / "none", RATE_HZ)
