"""Events a second of correlations and maps, beside the simple way and the transforms alone.

64 events of 16384 samples, in one batch on the CPU. The simple way is ``scipy.signal.correlate`` for each
pair of each event; the floor is the forward transform of the same windows, without which there is no
correlation, at the same number of threads. Maps are compared with the correlations of the same microphones.
"""

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.signal import correlate

from gerbil_tune.config.features import GccConfig, MapsConfig
from gerbil_tune.geometry import RecordingSetup, microphone_pairs
from gerbil_tune.models.features.gcc import GeneralizedCrossCorrelation
from gerbil_tune.models.features.maps import SteeredResponse

NUM_EVENTS, NUM_SAMPLES = 64, 16384


def make_setup(num_microphones: int) -> RecordingSetup:
    """Microphones on a ring around the arena."""
    angles = [2 * math.pi * i / num_microphones for i in range(num_microphones)]
    ring_mm = tuple((286 * math.cos(a), 178 * math.sin(a), 100.0) for a in angles)
    return RecordingSetup(num_microphones, 125_000.0, (572.0, 356.0), ring_mm)


def make_audio(num_microphones: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(NUM_EVENTS, num_microphones, NUM_SAMPLES, generator=generator)


def correlate_one_by_one(audio_BCT: np.ndarray, max_lag: int) -> np.ndarray:
    """Correlate pair after pair, event after event: (B, P, L)."""
    zero = audio_BCT.shape[2] - 1
    return np.array(
        [
            [
                correlate(audio_CT[i], audio_CT[j], "full", "fft")[
                    zero - max_lag : zero + max_lag + 1
                ]
                for i, j in microphone_pairs(len(audio_CT))
            ]
            for audio_CT in audio_BCT
        ]
    )


def transform_windows(gcc: GeneralizedCrossCorrelation, audio_BCT: torch.Tensor) -> torch.Tensor:
    """Transform as many windows as the feature does, already cut, weighted and padded."""
    length, hop = gcc.config.window_length, gcc.spectra.hop_length
    num_windows = -(-NUM_SAMPLES // hop) + 1
    padded_BCT = torch.nn.functional.pad(audio_BCT, (0, num_windows * hop + length - NUM_SAMPLES))
    windows = padded_BCT.unfold(2, length, hop)[:, :, :num_windows] * gcc.spectra.window_N
    return torch.nn.functional.pad(windows, (0, gcc.spectra.fft_length - length)).contiguous()


def best_rate(work: Callable[[], Any], repeats: int) -> float:
    """Largest events a second of some repeats; the first repeat warms up."""
    best = 0.0
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        best = max(best, NUM_EVENTS / (time.perf_counter() - begin))
    return best


@torch.inference_mode()
def measure_correlations(name: str, config: GccConfig, repeats: int) -> None:
    gcc = GeneralizedCrossCorrelation(config, make_setup(4))
    audio_BCT = make_audio(4)
    windows = transform_windows(gcc, audio_BCT)
    ours = best_rate(lambda: gcc(audio_BCT), repeats)
    floor = best_rate(lambda: torch.fft.rfft(windows), repeats)
    simple = best_rate(lambda: correlate_one_by_one(audio_BCT.numpy(), gcc.max_lag), 2)
    print(
        f"{name:22s} {ours:8,.0f} events/s   scipy by pair {simple:6,.0f} (x{ours / simple:.1f})   "
        f"transforms alone {floor:8,.0f} (x{ours / floor:.2f})"
    )


@torch.inference_mode()
def measure_maps(num_microphones: int, repeats: int) -> None:
    setup, audio_BCT = make_setup(num_microphones), make_audio(num_microphones)
    gcc, maps = (
        GeneralizedCrossCorrelation(GccConfig(), setup),
        SteeredResponse(MapsConfig(), setup),
    )
    correlations = best_rate(lambda: gcc(audio_BCT), repeats)
    ours = best_rate(lambda: maps(audio_BCT), repeats)
    print(
        f"maps, {num_microphones:2d} microphones   {ours:8,.0f} events/s   {1e3 / ours:6.2f} ms an event   "
        f"correlations {correlations:8,.0f} (x{ours / correlations:.2f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{NUM_EVENTS} events, {NUM_SAMPLES} samples, {arguments.threads} threads")
    for name, config in {
        "default": GccConfig(),
        "plain": GccConfig(exponent=0.0),
        "coherence and envelope": GccConfig(coherence_exponent=1.0, envelope=True),
    }.items():
        measure_correlations(name, config, arguments.repeats)
    for num_microphones in (4, 8, 24):
        measure_maps(num_microphones, arguments.repeats)


if __name__ == "__main__":
    main()
