"""Several trained models that answer as one.

    <root>/<name>/<00002>/
        ensemble.json       names of the members
        members/00/ 01/ ..  each a whole bundle
        metrics.json        validation metrics of the ensemble
        calibration.json    its own, on top of the members'
        provenance.json     where it came from

The ensemble states the mixture of its members' calibrated densities, with equal weights (as in deep
ensembles, Lakshminarayanan et al. 2017, arXiv:1612.01474), calibrated once more as a whole. Where the members
differ, the ensemble is less sure.

Letters: B batch, C microphones, T samples.
"""

import hashlib
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gerbil_tune.errors import DatasetError
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.bundle_files import (
    ENSEMBLE_FILE,
    METRICS_FILE,
    PROVENANCE_FILE,
    model_facts,
    read_calibration,
    read_json,
    write_json,
    write_model_folder,
)
from gerbil_tune.models.calibrated import Calibration
from gerbil_tune.models.density import LocationDensity

if TYPE_CHECKING:
    from gerbil_tune.models.bundle import Bundle

FORMAT = 1
_MEMBERS = "members"


@dataclass(frozen=True)
class Ensemble:
    """Several bundles for one recording site, ready to predict as one.

    Attributes:
        path: Its folder.
        members: At least two.
        calibration: What makes the mixture's uncertainty true.
        metrics: Validation metrics.
        provenance: Where it came from.
    """

    path: Path
    members: "tuple[Bundle, ...]"
    calibration: Calibration
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
    def num_parameters(self) -> int:
        """Weights of all members."""
        return sum(member.num_parameters for member in self.members)

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
        parts = [
            f"{member.fingerprint} {member.calibration.temperature!r}" for member in self.members
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def predict_batch(
        self,
        audio_BTC: Tensor,
        lengths_B: Tensor,
        mean_BC: Tensor | None = None,
        sd_BC: Tensor | None = None,
    ) -> LocationDensity:
        """Localize a padded batch; arguments and result are those of ``Bundle.predict_batch``."""
        densities = [
            member.predict_batch(
                *cut_to_middle(audio_BTC, lengths_B, member.crop_length), mean_BC, sd_BC
            )
            for member in self.members
        ]
        return LocationDensity.mixture_of(densities).tempered(self.calibration.temperature)


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
    calibration: Calibration,
    provenance: Mapping[str, Any],
) -> Path:
    """Copy bundles into the folder of an ensemble, ``parent/<next number>``, and return that folder."""
    names = [f"{number:02d}" for number in range(len(bundles))]

    def fill(folder: Path) -> None:
        write_json(folder / ENSEMBLE_FILE, {"format": FORMAT, "members": names})
        for name, bundle in zip(names, bundles, strict=True):
            shutil.copytree(bundle, folder / _MEMBERS / name)

    facts = model_facts(metrics, calibration, provenance)
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
        calibration=read_calibration(folder),
        metrics=read_json(folder / METRICS_FILE),
        provenance=read_json(folder / PROVENANCE_FILE),
    )
