"""The file: contents, determinism, sources from wav files, and errors."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io.wavfile
import typer
import typer.testing

import gerbil_tune
from gerbil_tune.cli.simulate import simulate as simulate_command
from gerbil_tune.data.simulate import PRESETS, make_spec, simulate
from gerbil_tune.data.simulate.plan import event_generator, plan_event
from gerbil_tune.data.simulate.render import render_event
from gerbil_tune.data.simulate.wavs import find_wavs, read_wav
from gerbil_tune.errors import ConfigError

E1 = PRESETS["e1"]
SHORT = {"duration_ms": (20.0, 40.0)}


@pytest.fixture(scope="module")
def two_keypoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 events by two worker processes."""
    path = tmp_path_factory.mktemp("simulated") / "new" / "two.h5"
    spec = make_spec(E1, keypoints=2, **SHORT)
    simulate(spec, path, num_events=40, seed=5, processes=2, show_progress=False)
    return path


def test_the_number_of_processes_does_not_change_the_file(
    two_keypoints: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "alone.h5"
    spec = make_spec(E1, keypoints=2, **SHORT)
    simulate(spec, alone, num_events=40, seed=5, processes=1, show_progress=False)
    assert alone.read_bytes() == two_keypoints.read_bytes()


def test_events_do_not_depend_on_how_many_there_are_but_on_the_seed(
    two_keypoints: Path, tmp_path: Path
) -> None:
    spec = make_spec(E1, keypoints=2, **SHORT)
    for seed in (5, 6):
        simulate(spec, tmp_path / f"{seed}.h5", num_events=3, seed=seed, show_progress=False)
    with (
        h5py.File(two_keypoints) as many,
        h5py.File(tmp_path / "5.h5") as few,
        h5py.File(tmp_path / "6.h5") as other,
    ):
        assert np.array_equal(few["locations"], many["locations"][:3])
        assert np.array_equal(few["vocalizations"], many["vocalizations"][: few["len_idx"][-1]])
        assert not np.array_equal(few["locations"], other["locations"])


def test_contents(two_keypoints: Path) -> None:
    with h5py.File(two_keypoints) as file:
        audio, starts = file["vocalizations"], file["len_idx"][()]
        assert audio.dtype == np.float32
        assert audio.chunks is None
        assert audio.id.get_offset() is not None
        assert starts.dtype == np.int64
        assert starts.shape == (41,)
        assert starts[0] == 0
        assert audio.shape == (starts[-1], 4)
        lengths_ms = np.diff(starts) / 125.0
        assert lengths_ms.min() >= 20 + 2 + 3
        assert lengths_ms.max() <= 40 + 6 + 12 + 3
        peaks = [np.abs(audio[a:b]).max() for a, b in itertools.pairwise(starts)]
        assert min(peaks) > 9e-4
        assert max(peaks) < 2e-2
        locations = file["locations"][()]
        assert locations.dtype == np.float32
        assert locations.shape == (40, 2, 2)
        assert np.all(np.abs(locations) < np.array(E1.size_mm[:2]) / 2)
        distance_mm = np.linalg.norm(locations[:, 0] - locations[:, 1], axis=-1)
        assert np.all((distance_mm > 14.99) & (distance_mm < 25.01))
        assert file["node_names"][()].tolist() == [b"nose", b"head"]
        assert np.all((file["snr_db"][()] >= 5) & (file["snr_db"][()] <= 25))
        height_mm = file["source_height_mm"][()]
        assert np.all((height_mm >= 20) & (height_mm <= 60))
        assert file.attrs["sample_rate_hz"] == 125_000
        assert file.attrs["arena_mm"] == pytest.approx(E1.size_mm)
        assert file.attrs["microphones_mm"].tolist() == [list(p) for p in E1.microphones_mm]
        assert file.attrs["units"] == "mm"
        assert file.attrs["origin"] == "arena centre, floor"
        history = json.loads(file.attrs["simulation"])
    assert history["seed"] == 5
    assert history["package_version"] == gerbil_tune.__version__
    assert make_spec(**history["spec"]) == make_spec(E1, keypoints=2, **SHORT)


def test_the_file_holds_the_rendered_events_in_order(two_keypoints: Path) -> None:
    spec = make_spec(E1, keypoints=2, **SHORT)
    with h5py.File(two_keypoints) as file:
        for event in (0, 17, 39):
            audio, plan = render_event(spec, None, 5, event)
            start, stop = file["len_idx"][event : event + 2]
            assert np.array_equal(file["vocalizations"][start:stop], audio)
            assert file["locations"][event] == pytest.approx(np.array(plan.keypoints_mm))
            assert file["snr_db"][event] == pytest.approx(plan.snr_db)


def test_one_keypoint_gives_the_seeds_layout(tmp_path: Path) -> None:
    path = tmp_path / "one.h5"
    simulate(make_spec(E1, **SHORT), path, num_events=2, seed=0, show_progress=False)
    with h5py.File(path) as file:
        assert file["locations"].shape == (2, 2)
        assert "node_names" not in file
    assert [path.name for path in tmp_path.iterdir()] == ["one.h5"]


def test_noses_fill_the_arena_evenly() -> None:
    spec = make_spec(E1, keypoints=2)
    plans = [plan_event(spec, None, event_generator(1, event)) for event in range(2000)]
    noses = np.array([plan.keypoints_mm[0] for plan in plans]) / np.array(E1.size_mm[:2])
    counts, _, _ = np.histogram2d(*noses.T, bins=2, range=[[-0.5, 0.5]] * 2)
    assert counts.min() > 430  # 500 each, more than three standard deviations wide.
    assert np.abs(noses).max() > 0.45
    durations = np.log([plan.call_samples / 125.0 for plan in plans])
    assert durations.mean() == pytest.approx((np.log(20) + np.log(200)) / 2, abs=0.06)


def write_wavs(folder: Path) -> None:
    rng = np.random.default_rng(0)
    tone = np.sin(2 * np.pi * 5000 * np.arange(2400) / 48_000)
    scipy.io.wavfile.write(folder / "a.wav", 48_000, (tone * 30_000).astype(np.int16))
    stereo = np.stack([0.1 * tone, 0.8 * tone], axis=1).astype(np.float32)
    scipy.io.wavfile.write(folder / "b.WAV", 125_000, stereo)
    eight_bit = (128 + 100 * tone + rng.integers(-2, 3, 2400)).astype(np.uint8)
    scipy.io.wavfile.write(folder / "c.wav", 44_100, eight_bit)


def test_calls_from_wav_files(tmp_path: Path) -> None:
    folder = tmp_path / "calls"
    folder.mkdir()
    write_wavs(folder)
    wavs = find_wavs(folder, 125e3)
    assert [path.name for path in wavs.paths] == ["a.wav", "b.WAV", "c.wav"]
    assert wavs.lengths == (6250, 2400, 6803)
    for path, length, peak in zip(
        wavs.paths, wavs.lengths, (30_000 / 32_768, 0.8, 0.79), strict=True
    ):
        call = read_wav(path, 125e3)
        assert call.shape == (length,)
        assert np.abs(call).max() == pytest.approx(peak, rel=0.05)
    spectrum = np.abs(np.fft.rfft(read_wav(wavs.paths[0], 125e3)))
    assert np.argmax(spectrum) * 125e3 / 6250 == pytest.approx(5000, abs=20)

    path = tmp_path / "out.h5"
    spec = make_spec(E1, wavs=folder, snr_db=(30.0, 30.0))
    simulate(spec, path, num_events=6, seed=0, show_progress=False)
    with h5py.File(path) as file:
        audio = file["vocalizations"][: file["len_idx"][1], 0]
    plan = plan_event(spec, wavs, event_generator(0, 0))
    assert plan.wav_index is not None
    assert plan.call_samples == wavs.lengths[plan.wav_index]
    loudest_hz = np.argmax(np.abs(np.fft.rfft(audio))) * 125e3 / len(audio)
    original_hz = {0: 5000, 1: 5000 * 125 / 48, 2: 5000 * 44.1 / 48}[plan.wav_index]
    assert loudest_hz == pytest.approx(original_hz, rel=0.01)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: None, "holds no .wav"),
        (lambda folder: (folder / "x.wav").write_text("no wav"), r"x\.wav cannot be read"),
        (
            lambda folder: scipy.io.wavfile.write(folder / "x.wav", 8000, np.zeros(100, np.int16)),
            "silent",
        ),
        (
            lambda folder: scipy.io.wavfile.write(folder / "x.wav", 8000, np.ones(5, np.int16)),
            "has 5 samples",
        ),
        (
            lambda folder: scipy.io.wavfile.write(folder / "x.wav", 100, np.ones(2000, np.int16)),
            "20.0 s long",
        ),
    ],
)
def test_wav_folders_that_cannot_serve(tmp_path: Path, make: object, words: str) -> None:
    assert callable(make)
    make(tmp_path)
    with pytest.raises(ConfigError, match=words):
        find_wavs(tmp_path, 125e3)


def test_a_wav_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        find_wavs(tmp_path / "none", 125e3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_events": 0}, "events must be 1 or more; received 0"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"processes": 0}, "processes must be 1 or more"),
    ],
)
def test_numbers_out_of_range(tmp_path: Path, changes: dict[str, int], words: str) -> None:
    arguments = {"num_events": 1, "seed": 0} | changes
    with pytest.raises(ConfigError, match=words):
        simulate(make_spec(E1), tmp_path / "x.h5", show_progress=False, **arguments)
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_replaced_only_on_request(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    path.write_text("precious")
    arguments = {"num_events": 1, "seed": 0, "show_progress": False}
    with pytest.raises(ConfigError, match="--force"):
        simulate(make_spec(E1), path, **arguments)
    assert path.read_text() == "precious"
    simulate(make_spec(E1), path, overwrite=True, **arguments)
    assert h5py.is_hdf5(path)


def test_outputs_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for output, words in (
        (tmp_path, "is a folder"),
        (tmp_path / "file" / "x.h5", "cannot be made"),
    ):
        with pytest.raises(ConfigError, match=words):
            simulate(make_spec(E1), output, num_events=1, seed=0, show_progress=False)
    spec = make_spec(E1, duration_ms=(1e12, 1e12))
    with pytest.raises(ConfigError, match="GB free"):
        simulate(spec, tmp_path / "x.h5", num_events=3, seed=0, show_progress=False)


def test_an_error_in_a_worker_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wav file that changes while the simulation runs."""
    folder = tmp_path / "calls"
    folder.mkdir()
    write_wavs(folder)
    from gerbil_tune.data.simulate import writer

    wavs = find_wavs(folder, 125e3)
    (folder / "a.wav").unlink()
    monkeypatch.setattr(writer, "find_wavs", lambda *_: wavs)
    with pytest.raises(ConfigError, match=r"a\.wav cannot be read"):
        simulate(
            make_spec(E1, wavs=folder),
            tmp_path / "x.h5",
            num_events=33,
            seed=0,
            processes=2,
            show_progress=False,
        )
    assert [path.name for path in tmp_path.iterdir()] == ["calls"]


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    timer = threading.Timer(0.6, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        simulate(
            make_spec(PRESETS["e3"]),
            tmp_path / "x.h5",
            num_events=2000,
            seed=0,
            processes=1,
            show_progress=False,
        )
    timer.join()
    assert not list(tmp_path.iterdir())


def command() -> typer.Typer:
    app = typer.Typer()
    app.command()(simulate_command)
    return app


def test_command_line(tmp_path: Path) -> None:
    runner = typer.testing.CliRunner()
    path = tmp_path / "x.h5"
    options = ["--preset", "e2", "--events", "2", "--seed", "9", "--snr-db", "10", "12"]
    result = runner.invoke(command(), [str(path), *options])
    assert result.exit_code == 0, result.output
    assert "2 events of room e2, 8 microphones" in result.output
    with h5py.File(path) as file:
        assert file["vocalizations"].shape[1] == 8
        assert np.all((file["snr_db"][()] >= 10) & (file["snr_db"][()] <= 12))
        assert json.loads(file.attrs["simulation"])["seed"] == 9
    result = runner.invoke(command(), [str(path), "--preset", "e2", "--room", "r.yaml"])
    assert isinstance(result.exception, ConfigError)
    result = runner.invoke(command(), [str(tmp_path / "y.h5"), "--snr-db", "12", "10"])
    assert isinstance(result.exception, ConfigError)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, gerbil_tune.cli.simulate;"
        "print([m for m in ('numpy', 'scipy', 'h5py', 'pyroomacoustics', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
