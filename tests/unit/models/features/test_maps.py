"""Letters: B batch, C microphones, T samples, P pairs, F planes, H bands, G cells, Y rows, X columns."""

import math

import numpy as np
import pytest
import torch

from gerbil_tune.config.features import MapsConfig
from gerbil_tune.errors import ConfigError
from gerbil_tune.geometry import RecordingSetup, mirror_permutation
from gerbil_tune.models.features.maps import MapGrid, SteeredResponse, path_differences_mm
from gerbil_tune.units import distance_to_delay_s
from tests.unit.models.features.signals import noise, noise_from

RATE_HZ = 125_000.0
ARENA_MM = (572.0, 356.0)
CORNERS_MM = tuple((x, y, 100.0) for x in (-286.0, 286.0) for y in (-178.0, 178.0))
SIDES_MM = ((-286.0, 0.0, 150.0), (286.0, 0.0, 150.0), (0.0, -178.0, 150.0), (0.0, 178.0, 150.0))


def make_setup(microphones_mm=CORNERS_MM, rate_hz=RATE_HZ):
    return RecordingSetup(len(microphones_mm), rate_hz, ARENA_MM, microphones_mm)


def make_maps(microphones_mm=CORNERS_MM, **config):
    return SteeredResponse(MapsConfig(**config), make_setup(microphones_mm))


def cell_mm(maps, row, column, height_mm=40.0):
    rows, columns = maps.grid.shape
    x_low, x_high, y_low, y_high = maps.grid.extent_mm
    return (
        x_low + (column + 0.5) / columns * (x_high - x_low),
        y_low + (row + 0.5) / rows * (y_high - y_low),
        height_mm,
    )


@pytest.mark.parametrize("microphones_mm", [CORNERS_MM, CORNERS_MM + SIDES_MM])
@pytest.mark.parametrize(
    "config", [{}, {"envelope": False}, {"exponent": 0.75, "coherence_exponent": 1.0}]
)
@pytest.mark.parametrize(("row", "column"), [(4, 30), (12, 17), (22, 0)])
def test_noise_is_brightest_in_its_cell_in_every_band(microphones_mm, config, row, column):
    maps = make_maps(microphones_mm, **config)
    audio_BCT = noise_from(cell_mm(maps, row, column), make_setup(microphones_mm))
    maps_FYX = maps(audio_BCT)[0]
    assert maps_FYX.shape == (4, 23, 36)
    brightest_F = maps_FYX.flatten(1).argmax(1)
    assert [divmod(place, 36) for place in brightest_F.tolist()] == [(row, column)] * 4


def test_the_right_height_is_brightest_and_heights_follow_each_other_in_a_band():
    heights_mm = (0.0, 60.0, 120.0)
    maps = make_maps(CORNERS_MM + SIDES_MM, heights_mm=heights_mm, num_bands=2)
    audio_BCT = noise_from(cell_mm(maps, 7, 11, 60.0), make_setup(CORNERS_MM + SIDES_MM))
    maps_FYX = maps(audio_BCT)[0]
    assert maps_FYX.shape == (6, 23, 36)
    peaks_HZ = maps_FYX.flatten(1).amax(1).reshape(2, 3)
    assert peaks_HZ.argmax(1).tolist() == [1, 1]
    assert maps_FYX[1].argmax() == 7 * 36 + 11
    low, high = (
        make_maps(CORNERS_MM + SIDES_MM, heights_mm=(z,), num_bands=2) for z in (0.0, 120.0)
    )
    for plane, (single, band) in {0: (low, 0), 2: (high, 0), 3: (low, 1), 5: (high, 1)}.items():
        expected_YX = single(audio_BCT)[0, band]
        found_YX = maps_FYX[plane] * (expected_YX.std() / maps_FYX[plane].std())
        torch.testing.assert_close(found_YX, expected_YX, rtol=1e-3, atol=1e-3)


def steered_exactly(maps, setup, audio_BCT):
    """Sum over pairs and frequencies of each band at the lags of the cells, without interpolation: (H, G)."""
    correlation_PL = maps.spectra.lags(maps.spectra(audio_BCT))[0].double()
    length = maps.band_fft_length
    spectrum_PF = torch.fft.rfft(correlation_PL, n=length)
    points_mm_G3 = maps.grid.cells_mm_G3().double()
    microphones_mm_C3 = torch.tensor(setup.microphones_mm, dtype=torch.float64)
    samples_per_mm = distance_to_delay_s(1.0) * setup.sample_rate_hz
    lag_GP = path_differences_mm(points_mm_G3, microphones_mm_C3) * samples_per_mm
    turn_GPF = torch.exp(
        2j
        * math.pi
        * (lag_GP + maps.spectra.max_lag)[..., None]
        * torch.fft.rfftfreq(length, dtype=torch.float64)
    )
    return torch.einsum("hf,gpf,pf->hg", maps.bands_HF + 0j, turn_GPF, spectrum_PF + 0j).real


def test_cells_are_the_steered_response_within_the_stated_error_of_interpolation():
    setup = make_setup()
    maps = make_maps(cell_mm=40.0, envelope=False)
    audio_BCT = noise_from((101.3, -57.7, 40.0), setup) + 0.5 * noise(1, 4, 4000, seed=2)
    exact_HG = steered_exactly(maps, setup, audio_BCT)
    exact_HG = exact_HG - exact_HG.mean(1, keepdim=True)
    exact_HG = exact_HG / exact_HG.square().mean().sqrt()
    error_HG = maps(audio_BCT)[0].flatten(1) - exact_HG
    relative_H = error_HG.square().mean(1).sqrt() / exact_HG.square().mean(1).sqrt()
    # The top band reaches from 26 kHz to half the sample rate; the mean loss is two thirds of the largest.
    assert (relative_H < torch.tensor([0.01, 0.01, 0.01, 0.05])).all()


def brightest_mm(maps, audio_BCT):
    """Where the last band, which is the highest, has its peak."""
    row, column = divmod(int(maps(audio_BCT)[0, -1].argmax()), maps.grid.shape[1])
    return torch.tensor(cell_mm(maps, row, column))


def test_envelopes_are_seen_wherever_in_a_cell_the_sound_is():
    """In cells of 40 mm, in a band whose correlations alternate every 7 mm."""
    setup = make_setup(CORNERS_MM + SIDES_MM)
    both = [make_maps(CORNERS_MM + SIDES_MM, cell_mm=40.0, envelope=e) for e in (True, False)]
    middle_mm = torch.tensor(cell_mm(both[0], 4, 9))
    far = [0, 0]
    for x, y in [(-18.0, 0.0), (-9.0, 11.0), (0.0, -18.0), (5.0, -7.0), (13.0, 13.0), (18.0, 2.0)]:
        place_mm = middle_mm + torch.tensor([x, y, 0.0])
        audio_BCT = noise_from(tuple(place_mm.tolist()), setup)
        for i, maps in enumerate(both):
            far[i] += int((brightest_mm(maps, audio_BCT) - place_mm).abs().max() > 40.0)
    assert far[0] == 0
    assert far[1] > 0


def test_the_envelope_of_a_band_is_that_of_its_correlation_averaged_over_a_cell():
    """A band of one frequency has a constant envelope, which is its amplitude."""
    maps = make_maps()
    bands_BPHF = torch.zeros(2, 6, 4, maps.band_fft_length // 2 + 1, dtype=torch.complex64)
    bands_BPHF[0, 2, 1, 20] = 3.0 - 4.0j
    fine_BPHN = maps._fine(bands_BPHF) * maps.band_fft_length * 4
    torch.testing.assert_close(fine_BPHN[0, 2, 1], torch.full_like(fine_BPHN[0, 2, 1], 10.0))
    fine_BPHN[0, 2, 1] = 0.0
    assert not fine_BPHN.any()


@pytest.mark.parametrize("axis", [0, 1])
def test_microphones_in_mirrored_order_flip_the_maps(axis):
    setup = make_setup(CORNERS_MM + SIDES_MM)
    maps = make_maps(CORNERS_MM + SIDES_MM)
    audio_BCT = noise_from((120.0, -60.0, 40.0), setup)
    order = list(mirror_permutation(setup, axis))
    expected = maps(audio_BCT).flip(3 if axis == 0 else 2)
    torch.testing.assert_close(maps(audio_BCT[:, order]), expected, rtol=1e-3, atol=1e-3)


def test_padding_loudness_and_company_change_nothing():
    maps = make_maps(cell_mm=40.0, coherence_exponent=1.0)
    event_BCT = noise_from((50.0, 20.0, 40.0), make_setup(), num_samples=2500)
    batch_BCT = noise(6, 4, 4100)
    batch_BCT[4] = 300 * torch.nn.functional.pad(event_BCT[0], (0, 1600))
    torch.testing.assert_close(maps(batch_BCT)[4], maps(event_BCT)[0], rtol=1e-3, atol=1e-3)


def test_images_have_zero_mean_and_unit_mean_square_together():
    maps_BFYX = make_maps(num_bands=3)(noise(3, 4, 2000) * torch.logspace(-3, 3, 3)[:, None, None])
    torch.testing.assert_close(maps_BFYX.mean((2, 3)), torch.zeros(3, 3), rtol=0, atol=1e-5)
    torch.testing.assert_close(maps_BFYX.square().mean((1, 2, 3)), torch.ones(3))


def test_silence_is_zero():
    assert not make_maps(cell_mm=60.0)(torch.zeros(2, 4, 500)).any()


def test_bands_of_equal_width_in_log_frequency_take_their_frequencies_alone():
    """A band-limited sound is seen in its band: 8 to 16 kHz is the second of three from 4 to 32 kHz."""
    maps = make_maps(
        num_bands=3, band_low_hz=4000.0, band_high_hz=32_000.0, exponent=0.0, cell_mm=40.0
    )
    audio_BCT = noise_from((50.0, 20.0, 40.0), make_setup(), num_samples=8000)
    spectrum = torch.fft.rfft(audio_BCT)
    frequency_hz = torch.fft.rfftfreq(8000, 1 / RATE_HZ)
    inside = (frequency_hz > 9000) & (frequency_hz < 15_000)
    maps_FYX = maps(torch.fft.irfft(spectrum * inside, n=8000))[0]
    energy_F = maps_FYX.square().mean((1, 2))
    assert energy_F[1] > 0.95 * energy_F.sum()


def test_grid_divides_the_arena_and_its_margin_into_equal_cells():
    grid = MapGrid.of_site(MapsConfig(cell_mm=16.0, margin_mm=14.0), make_setup())
    assert grid.shape == (24, 38)  # 384 and 600 mm: 24 cells of 16, 38 of 15.8
    assert grid.extent_mm == (-300.0, 300.0, -192.0, 192.0)
    cells_mm = grid.cells_mm_G3().reshape(24, 38, 3)
    assert cells_mm[0, 0].tolist() == pytest.approx([-300 + 300 / 38, -184.0, 40.0])
    assert cells_mm[-1, -1].tolist() == pytest.approx([300 - 300 / 38, 184.0, 40.0])
    assert np.diff(cells_mm[0, :, 0]) == pytest.approx(600 / 38, rel=1e-4)
    assert np.diff(cells_mm[:, 0, 1]) == pytest.approx(16.0, rel=1e-4)


def test_what_cannot_be_mapped_is_refused_in_one_sentence():
    unknown = RecordingSetup(4, RATE_HZ, ARENA_MM)
    with pytest.raises(ConfigError, match=r"maps of the arena need the microphone positions"):
        SteeredResponse(MapsConfig(), unknown)
    with pytest.raises(ConfigError, match=r"band_low_hz is 2000, but must be below 1500"):
        SteeredResponse(MapsConfig(), make_setup(rate_hz=3000.0))
    with pytest.raises(ConfigError, match=r"num_bands is 200, but of so many bands"):
        make_maps(num_bands=200)


def test_24_microphones_in_bounded_memory():
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    ring_mm = tuple((280 * math.cos(a), 170 * math.sin(a), 80.0) for a in angles)
    maps = make_maps(ring_mm, cell_mm=40.0)
    row, column = 3, 9
    audio_BCT = noise_from(cell_mm(maps, row, column), make_setup(ring_mm), num_samples=2000)
    brightest_F = maps(audio_BCT)[0].flatten(1).argmax(1)
    assert brightest_F.tolist() == [row * maps.grid.shape[1] + column] * 4
