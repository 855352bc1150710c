"""Several trained models that answer as one.

    <root>/<name>/<00002>/
        ensemble.json       names of the members
        members/00/ 01/ ..  each a whole bundle
        metrics.json        validation metrics of the ensemble
        calibration.json    its own covariance_scale, on top of the members'
        provenance.json     where it came from

With equal weights the members' calibrated Gaussians N(mᵢ, Sᵢ) make a mixture. The ensemble states the
Gaussian of the same first two moments, times one factor s that is fitted on validation events:

    m = mean(mᵢ)        S = s · (mean(Sᵢ) + mean((mᵢ - m)(mᵢ - m)ᵀ))

The second term is the members' disagreement: where they differ, the ensemble is less sure.

Letters: M members, B batch, C microphones, T samples, K keypoints, D axes.
"""

import hashlib
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gerbil_tune.errors import DatasetError
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.bundle_files import (
    ENSEMBLE_FILE,
    METRICS_FILE,
    PROVENANCE_FILE,
    model_facts,
    read_covariance_scale,
    read_json,
    write_json,
    write_model_folder,
)

if TYPE_CHECKING:
    from gerbil_tune.models.bundle import Bundle

FORMAT = 1
_MEMBERS = "members"
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Ensemble:
    """Several bundles for one recording site, ready to predict as one.

    Attributes:
        path: Its folder.
        members: At least two.
        covariance_scale: Factor on the mixture's covariance that calibrates it.
        metrics: Validation metrics.
        provenance: Where it came from.
    """

    path: Path
    members: "tuple[Bundle, ...]"
    covariance_scale: float
    metrics: dict[str, Any]
    provenance: dict[str, Any]

    @property
    def name(self) -> str:
        """Of the experiment."""
        return self.members[0].name

    @property
    def kind(self) -> str:
        """What stands for the architecture: ``ensemble of gcc-net, densenet``."""
        return f"ensemble of {', '.join(dict.fromkeys(member.kind for member in self.members))}"

    @property
    def setup(self) -> RecordingSetup:
        """The recording site that all members are for."""
        return self.members[0].setup

    @property
    def crop_length(self) -> int:
        """Samples of an event that at least one member takes."""
        return max(member.crop_length for member in self.members)

    @property
    def uses_statistics(self) -> bool:
        """Whether a member has a use for the statistics of whole events."""
        return any(member.uses_statistics for member in self.members)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the members' fingerprints and calibrations, hexadecimal."""
        parts = [f"{member.fingerprint} {member.covariance_scale!r}" for member in self.members]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def predict_batch(
        self,
        audio_BTC: Tensor,
        lengths_B: Tensor,
        mean_BC: Tensor | None = None,
        sd_BC: Tensor | None = None,
    ) -> tuple[FloatArray, FloatArray]:
        """Localize a padded batch; arguments and results are those of ``Bundle.predict_batch``."""
        answers = [
            member.predict_batch(
                *cut_to_middle(audio_BTC, lengths_B, member.crop_length), mean_BC, sd_BC
            )
            for member in self.members
        ]
        mean_BKD, covariance_BKDD = mixture_moments(
            [mean for mean, _ in answers], [covariance for _, covariance in answers]
        )
        scale = np.float32(self.covariance_scale)
        return mean_BKD, covariance_BKDD * scale


def mixture_moments(
    means_MBKD: Sequence[npt.NDArray[Any]], covariances_MBKDD: Sequence[npt.NDArray[Any]]
) -> tuple[FloatArray, FloatArray]:
    """Mean and covariance of a mixture of Gaussians with equal weights.

    Args:
        means_MBKD: Of each member (B, K, D), mm.
        covariances_MBKDD: Of each member (B, K, D, D), mm².

    Returns:
        (B, K, D) in mm and (B, K, D, D) in mm², float32.
    """
    means = np.asarray(means_MBKD, np.float64)
    mean_BKD = means.mean(axis=0)
    apart = means - mean_BKD
    between_BKDD = (apart[..., :, None] * apart[..., None, :]).mean(axis=0)
    within_BKDD = np.asarray(covariances_MBKDD, np.float64).mean(axis=0)
    return mean_BKD.astype(np.float32), (within_BKDD + between_BKDD).astype(np.float32)


def cut_to_middle(audio_BTC: Tensor, lengths_B: Tensor, crop_length: int) -> tuple[Tensor, Tensor]:
    """Keep the middle of the events of a padded batch that are longer than ``crop_length``."""
    if audio_BTC.shape[1] <= crop_length:
        return audio_BTC, lengths_B
    kept_B = lengths_B.clamp(max=crop_length)
    first_B = (lengths_B - kept_B) // 2
    place_T = torch.arange(crop_length, device=audio_BTC.device)
    index_BT = (first_B[:, None] + place_T).clamp(max=audio_BTC.shape[1] - 1)
    cut_BTC = audio_BTC.gather(1, index_BT[..., None].expand(-1, -1, audio_BTC.shape[2]))
    return cut_BTC.masked_fill((place_T >= kept_B[:, None])[..., None], 0), kept_B


def save_ensemble(
    parent: Path,
    bundles: Sequence[Path],
    *,
    metrics: Mapping[str, Any],
    covariance_scale: float,
    provenance: Mapping[str, Any],
) -> Path:
    """Copy bundles into the folder of an ensemble, ``parent/<next number>``, and return that folder."""
    names = [f"{number:02d}" for number in range(len(bundles))]

    def fill(folder: Path) -> None:
        write_json(folder / ENSEMBLE_FILE, {"format": FORMAT, "members": names})
        for name, bundle in zip(names, bundles, strict=True):
            shutil.copytree(bundle, folder / _MEMBERS / name)

    facts = model_facts(metrics, covariance_scale, provenance)
    return write_model_folder(parent, None, fill, facts)


def is_ensemble(folder: Path) -> bool:
    """Whether a folder is that of an ensemble."""
    return (folder / ENSEMBLE_FILE).is_file()


def member_folders(folder: Path) -> tuple[Path, ...]:
    """Folders of an ensemble's members, in order.

    Raises:
        DatasetError: If ensemble.json is damaged or of another format.
    """
    path = folder / ENSEMBLE_FILE
    content = read_json(path)
    if content.get("format") != FORMAT:
        raise DatasetError(
            f"{path}: format is {content.get('format')!r}, but {FORMAT} is needed; update gerbil-tune"
        )
    names = content.get("members")
    if not (
        isinstance(names, list)
        and len(names) > 1
        and all(isinstance(name, str) and re.fullmatch(r"\d+", name) for name in names)
    ):
        raise DatasetError(
            f"{path}: members must be a list of at least two numbers such as '00', but is {names!r}; "
            "export the model again"
        )
    return tuple(folder / _MEMBERS / name for name in names)


def make_ensemble(folder: Path, members: "tuple[Bundle, ...]") -> Ensemble:
    """Put loaded members together with what the ensemble's folder says of them all.

    Raises:
        DatasetError: If the members are for different recording sites, or a file is damaged.
    """
    for member in members[1:]:
        if member.setup != members[0].setup:
            raise DatasetError(
                f"{member.path} is for another recording site than {members[0].path}; the members of an "
                "ensemble must agree in microphones, sample rate, arena, keypoints and axes"
            )
    return Ensemble(
        path=folder,
        members=members,
        covariance_scale=read_covariance_scale(folder),
        metrics=read_json(folder / METRICS_FILE),
        provenance=read_json(folder / PROVENANCE_FILE),
    )
