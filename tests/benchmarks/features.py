"""Events a second of the cross-correlation feature, beside the simple way and the transforms alone.

64 events of 16384 samples from 4 microphones, in one batch on the CPU. The simple way is
``scipy.signal.correlate`` for each pair of each event; the floor is the forward transform of the same
windows, without which there is no correlation, at the same number of threads.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.signal import correlate

from gerbil_tune.config.schema import GccConfig
from gerbil_tune.geometry import RecordingSetup, microphone_pairs
from gerbil_tune.models.features import GeneralizedCrossCorrelation

NUM_EVENTS, NUM_MICROPHONES, NUM_SAMPLES = 64, 4, 16384
SETUP = RecordingSetup(NUM_MICROPHONES, 125_000.0, (572.0, 356.0))


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
    length, hop = gcc.config.window_length, gcc.hop_length
    num_windows = -(-NUM_SAMPLES // hop) + 1
    padded_BCT = torch.nn.functional.pad(audio_BCT, (0, num_windows * hop + length - NUM_SAMPLES))
    windows = padded_BCT.unfold(2, length, hop)[:, :, :num_windows] * gcc.window_N
    return torch.nn.functional.pad(windows, (0, gcc.fft_length - length)).contiguous()


def best_rate(work: Callable[[], Any], repeats: int) -> float:
    """Largest events a second of some repeats; the first repeat warms up."""
    best = 0.0
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        best = max(best, NUM_EVENTS / (time.perf_counter() - begin))
    return best


@torch.inference_mode()
def measure(name: str, config: GccConfig, audio_BCT: torch.Tensor, repeats: int) -> None:
    gcc = GeneralizedCrossCorrelation(config, SETUP)
    windows = transform_windows(gcc, audio_BCT)
    ours = best_rate(lambda: gcc(audio_BCT), repeats)
    floor = best_rate(lambda: torch.fft.rfft(windows), repeats)
    simple = best_rate(lambda: correlate_one_by_one(audio_BCT.numpy(), gcc.max_lag), 2)
    print(
        f"{name:22s} {ours:8,.0f} events/s   scipy by pair {simple:6,.0f} (x{ours / simple:.1f})   "
        f"transforms alone {floor:8,.0f} (x{ours / floor:.2f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    generator = torch.Generator().manual_seed(0)
    audio_BCT = torch.randn(NUM_EVENTS, NUM_MICROPHONES, NUM_SAMPLES, generator=generator)
    print(f"{NUM_EVENTS} events, {NUM_SAMPLES} samples, {arguments.threads} threads")
    for name, config in {
        "default": GccConfig(),
        "plain": GccConfig(exponent=0.0),
        "coherence and envelope": GccConfig(coherence_exponent=1.0, envelope=True),
    }.items():
        measure(name, config, audio_BCT, arguments.repeats)


if __name__ == "__main__":
    main()
