"""Mirror images of events: what the same call on the other side of a symmetric arena would have given.

Mirroring acts on features, which costs a permutation, rather than on audio, which would have to be
transformed anew. It is exact for a box whose opposite walls are alike, and close for most arenas.

Letters: B batch, C microphones, T samples, P pairs, L lags, K keypoints, D axes.
"""

from dataclasses import replace

import torch
from torch import Tensor

from gerbil_tune.errors import ConfigError
from gerbil_tune.geometry import RecordingSetup, microphone_pairs, mirror_permutation
from gerbil_tune.models.features import Features


class Mirror:
    """One mirror plane through the arena's centre.

    Args:
        axis: 0 mirrors x, 1 mirrors y.
        order: For each channel, the channel at its mirror image.
    """

    def __init__(self, axis: int, order: tuple[int, ...]) -> None:
        self.axis = axis
        self.order = list(order)
        pairs = microphone_pairs(len(order))
        images = [(order[i], order[j]) for i, j in pairs]
        self.planes = [pairs.index((min(image), max(image))) for image in images]
        # A pair whose microphones change sides is the same pair in the other order: lags change sign.
        self.reversed = [image[0] > image[1] for image in images]

    def mirror_features(self, features: Features) -> Features:
        """Return the mirror image of every event."""
        audio_BCT, gcc_BPL = features.audio_BCT, features.gcc_BPL
        if audio_BCT is not None:
            audio_BCT = audio_BCT[:, self.order]
        if gcc_BPL is not None:
            repeats = gcc_BPL.shape[1] // len(self.planes)  # envelopes follow the correlations
            planes = [p + r * len(self.planes) for r in range(repeats) for p in self.planes]
            is_reversed_P = torch.tensor(self.reversed * repeats, device=gcc_BPL.device)
            image_BPL = gcc_BPL[:, planes]
            gcc_BPL = torch.where(is_reversed_P[:, None], image_BPL.flip(-1), image_BPL)
        return replace(features, audio_BCT=audio_BCT, gcc_BPL=gcc_BPL)

    def mirror_locations(self, locations_mm_BKD: Tensor) -> Tensor:
        """Return mirrored locations, (B, K, D) mm."""
        sign_D = torch.ones(locations_mm_BKD.shape[-1], device=locations_mm_BKD.device)
        sign_D[self.axis] = -1.0
        return locations_mm_BKD * sign_D


class MirrorAugmentation:
    """Mirrors each event on each symmetric axis with a probability.

    Args:
        probability: Of each axis; 0 does nothing.
        setup: The recording site.

    Raises:
        ConfigError: If mirroring is asked for and the array is unknown or symmetric on no axis.
    """

    def __init__(self, probability: float, setup: RecordingSetup) -> None:
        self.probability = probability
        self.mirrors: list[Mirror] = []
        if probability > 0:
            orders = ((axis, mirror_permutation(setup, axis)) for axis in (0, 1))
            self.mirrors = [Mirror(axis, order) for axis, order in orders if order is not None]
            if not self.mirrors:
                raise ConfigError(
                    f"augmentation/mirror_prob is {probability}, but the microphone array is unknown or "
                    "not mirror-symmetric; use --set augmentation/mirror_prob=0.0, or give the data file the "
                    "attribute microphones_mm"
                )

    def __call__(
        self, features: Features, locations_mm_BKD: Tensor, generator: torch.Generator
    ) -> tuple[Features, Tensor]:
        """Return features and locations, some mirrored; the same generator state, the same choice."""
        for mirror in self.mirrors:
            draws_B = torch.rand(
                len(locations_mm_BKD), generator=generator, device=generator.device
            )
            chosen_B = (draws_B < self.probability).to(locations_mm_BKD.device)
            image = mirror.mirror_features(features)
            features = replace(
                features,
                audio_BCT=_choose(chosen_B, image.audio_BCT, features.audio_BCT),
                gcc_BPL=_choose(chosen_B, image.gcc_BPL, features.gcc_BPL),
            )
            mirrored_BKD = mirror.mirror_locations(locations_mm_BKD)
            locations_mm_BKD = torch.where(chosen_B[:, None, None], mirrored_BKD, locations_mm_BKD)
        return features, locations_mm_BKD


def _choose(chosen_B: Tensor, image: Tensor | None, original: Tensor | None) -> Tensor | None:
    if image is None or original is None:
        return None
    return torch.where(chosen_B[:, None, None], image, original)
