"""What features cost, by formula: operations of one event, and the memory that they are computed in."""

import math
from dataclasses import dataclass

from gerbil_tune.models.features.extractor import FeatureExtractor
from gerbil_tune.models.features.maps import FINE_PER_SAMPLE, SteeredResponse
from gerbil_tune.models.features.spectra import PairSpectra

_FLOAT_BYTES = 4
_COMPLEX_BYTES = 8


@dataclass(frozen=True, slots=True)
class FeatureCost:
    """The cost of the features of one event.

    Attributes:
        operations: Multiplications and additions.
        working_bytes: What is kept at once while they are computed.
    """

    operations: float = 0.0
    working_bytes: float = 0.0

    def __add__(self, other: "FeatureCost") -> "FeatureCost":
        return FeatureCost(
            self.operations + other.operations, self.working_bytes + other.working_bytes
        )


def feature_cost(
    extractor: FeatureExtractor, num_microphones: int, num_samples: int
) -> FeatureCost:
    """Count what the extractor does with an event of so many samples.

    Channels over time count as memory alone: their few operations a sample are nothing beside a network's.
    """
    cost = FeatureCost()
    if "gcc" in extractor.uses:
        gcc = extractor.gcc
        lags = FeatureCost(gcc.num_planes * _transform(gcc.spectra.fft_length))
        cost += _spectra_cost(gcc.spectra, num_microphones, num_samples) + lags
    if extractor.maps is not None:
        cost += _spectra_cost(extractor.maps.spectra, num_microphones, num_samples)
        cost += _map_cost(extractor.maps)
    if "waveform" in extractor.uses:
        more_planes = extractor.shapes.waveform_planes - num_microphones
        cost += FeatureCost(working_bytes=max(0, more_planes) * num_samples * _FLOAT_BYTES)
    return cost


def _spectra_cost(spectra: PairSpectra, num_microphones: int, num_samples: int) -> FeatureCost:
    windows = math.ceil(num_samples / spectra.hop_length) + 2
    frequencies = len(spectra.band_F)
    has_power = spectra.config.coherence_exponent > 0
    return FeatureCost(
        num_microphones * windows * _transform(spectra.fft_length)
        + 8.0 * spectra.num_pairs * windows * frequencies  # a complex product and its sum
        + 4.0 * num_microphones * windows * frequencies * has_power,
        num_microphones * windows * spectra.config.window_length * _FLOAT_BYTES
        + (2 * num_microphones - 1) * windows * frequencies * _COMPLEX_BYTES
        + 3 * spectra.num_pairs * frequencies * _COMPLEX_BYTES,
    )


def _map_cost(maps: SteeredResponse) -> FeatureCost:
    fine_transforms = maps.spectra.num_pairs * maps.num_bands
    fine_length = maps.band_fft_length * FINE_PER_SAMPLE
    parts = 2 if maps.config.envelope else 1  # real and imaginary
    reads = maps.rows_GR.numel() * maps.num_bands
    return FeatureCost(
        maps.spectra.num_pairs * _transform(maps.spectra.fft_length)
        + parts * fine_transforms * _transform(fine_length)
        + 2.0 * reads,
        parts * fine_transforms * fine_length * _FLOAT_BYTES,
    )


def _transform(length: int) -> float:
    """Operations of a real transform: 2.5 N log2 N, half of what a complex one takes (FFTW's count)."""
    return 2.5 * length * math.log2(length)
