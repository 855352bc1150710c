"""Mirror images of events: what the same call on the other side of a symmetric arena would have given.

Mirroring acts on features, which costs a permutation, rather than on audio, which would have to be
transformed anew. It is exact for a box whose opposite walls are alike, and close for most arenas.

Letters: B batch, R chosen rows of it, C microphones, T samples, F planes, P pairs, L lags, Y rows and X
columns of a map, K keypoints, D axes.
"""

import torch
from torch import Tensor

from gerbil_tune.errors import ConfigError
from gerbil_tune.geometry import RecordingSetup, microphone_pairs, mirror_permutation
from gerbil_tune.models.features.features import Features


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
        waveform_BFT, gcc_BPL = features.waveform_BFT, features.gcc_BPL
        maps_BFYX = features.maps_BFYX
        return Features(
            features.lengths_B,
            None if waveform_BFT is None else self._mirror_waveform(waveform_BFT),
            None if gcc_BPL is None else self._mirror_gcc(gcc_BPL),
            # Rows are y, columns x, and the grid is centred on the arena.
            None if maps_BFYX is None else maps_BFYX.flip(3 if self.axis == 0 else 2),
        )

    def _mirror_waveform(self, waveform_BFT: Tensor) -> Tensor:
        kinds = waveform_BFT.shape[1] // len(self.order)
        planes = [c + kind * len(self.order) for kind in range(kinds) for c in self.order]
        return waveform_BFT[:, planes]

    def _mirror_gcc(self, gcc_BPL: Tensor) -> Tensor:
        repeats = gcc_BPL.shape[1] // len(self.planes)  # envelopes follow the correlations
        planes = [p + r * len(self.planes) for r in range(repeats) for p in self.planes]
        is_reversed_P = torch.tensor(self.reversed * repeats, device=gcc_BPL.device)
        image_BPL = gcc_BPL[:, planes]
        return torch.where(is_reversed_P[:, None], image_BPL.flip(-1), image_BPL)

    def mirror_locations(self, locations_mm_BKD: Tensor) -> Tensor:
        """Return mirrored locations, (B, K, D) mm."""
        sign_D = torch.ones(locations_mm_BKD.shape[-1], device=locations_mm_BKD.device)
        sign_D[self.axis] = -1.0
        return locations_mm_BKD * sign_D


class MirrorAugmentation:
    """Mirrors events on the axes on which the array is symmetric; which events, the caller has drawn.

    Args:
        probability: Of each axis, with which they were drawn; 0 does nothing.
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
        self, features: Features, locations_mm_BKD: Tensor, mirrored_B2: Tensor
    ) -> tuple[Features, Tensor]:
        """Return features and locations, some mirrored.

        Args:
            features: Of a batch; they are left as they are.
            locations_mm_BKD: (B, K, D) mm, likewise.
            mirrored_B2: bool in main memory, which events to mirror on x and on y; an axis on which the array
                is not symmetric is passed over.
        """
        for mirror in self.mirrors:
            rows_R = mirrored_B2[:, mirror.axis].nonzero()[:, 0]
            if len(rows_R):
                rows_R = rows_R.to(locations_mm_BKD.device)
                image = mirror.mirror_features(features.rows(rows_R))
                features = features.with_rows(rows_R, image)
                image_RKD = mirror.mirror_locations(locations_mm_BKD[rows_R])
                locations_mm_BKD = locations_mm_BKD.index_copy(0, rows_R, image_RKD)
        return features, locations_mm_BKD
