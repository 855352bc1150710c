"""What a predecessor's config.json says of a network that it trained.

Which program that was (its era) decides what the same weights mean, and no file states it. It is taken from
what the files do show, and asked for where they do not show enough; it is never guessed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from gerbil_tune.config.legacy_format import (
    GERBILIZER,
    VOCALOCATOR,
    Era,
    Section,
    arena_mm,
    as_list,
    conv_lists,
    read_upper,
    section_of,
    upper,
)
from gerbil_tune.config.legacy_heads import LegacyHead, legacy_head
from gerbil_tune.config.load import parse_overrides, set_paths, validate
from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.errors import ConfigError
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.units import counted

ERAS: tuple[Era, ...] = get_args(Era)
_OLD: frozenset[Era] = frozenset({"gerbilizer", "vocalocator-1.0"})
_NEW: frozenset[Era] = frozenset({"vocalocator-1.0", "vocalocator-1.1"})
_NETWORKS: dict[str, frozenset[Era]] = {
    # The networks were called so until June 2024, five months into the code of vocalocator 1.0.
    "GerbilizerSimpleNetwork": _OLD,
    "GerbilizerEnsemble": _OLD,
    "VocalocatorSimpleNetwork": _NEW,
    "CorrSimpleNetwork": _NEW,
    "Wavenet": _NEW,
    "VocalocatorEnsemble": _NEW,
}
_ENSEMBLES = {"gerbilizerensemble", "vocalocatorensemble"}
_EVIDENCE: dict[str, frozenset[Era]] = {
    # Defaults that a program writes into the config.json that it saves.
    "COMPUTE_XCORRS": frozenset({"gerbilizer"}),
    "NORMALIZE_DATA": _NEW,
    "VOCALIZATION_DIR": _NEW,
}
_WHOLE_EVENT = 2**31 - 1
"""Samples; an evaluation crop is from the middle of an event, and these networks see its beginning."""
_OF_THE_WEIGHTS = ("model", "head", "features")


@dataclass(frozen=True, slots=True)
class LegacyConfig:
    """A predecessor's config.json, with its keys in upper case.

    Attributes:
        path: The file.
        source: The same, for messages; with the place in it for a member of an ensemble that stands there.
        tree: The content.
        members: Of an ensemble; empty for a network.
    """

    path: Path
    source: str
    tree: Section
    members: tuple["LegacyConfig", ...] = ()

    @property
    def is_file(self) -> bool:
        """Whether it has a file of its own, beside which weights may lie."""
        return self.source == str(self.path)

    @property
    def weights_path(self) -> str | None:
        """WEIGHTS_PATH, as it was typed."""
        stated = self.tree.get("WEIGHTS_PATH")
        return str(stated) if stated else None


@dataclass(frozen=True, slots=True)
class LegacyNetwork:
    """What the config of one network means here.

    Attributes:
        experiment: Its architecture, head and units; the rest are our defaults.
        setup: The recording site.
        head: How its raw numbers become those of our head.
        notes: What the user should know, one sentence each.
    """

    experiment: ExperimentConfig
    setup: RecordingSetup
    head: LegacyHead
    notes: tuple[str, ...]


def read_legacy_config(path: Path) -> LegacyConfig:
    """Read a config and those of its members, if it is of an ensemble.

    Args:
        path: JSON or JSON5; keys in any case.

    Raises:
        ConfigError: If a file cannot be read, or the architecture cannot be imported.
    """
    tree = read_upper(path)
    config = LegacyConfig(path, str(path), tree)
    _check_architecture(config)
    if not _is_ensemble(tree):
        return config
    where = f"{path}: MODEL_PARAMS/CONSTITUENT_MODELS"
    stated = section_of(tree, "MODEL_PARAMS", str(path)).get("CONSTITUENT_MODELS")
    members = tuple(
        _read_member(member, path, f"{where}/{number}")
        for number, member in enumerate(as_list(stated, where))
    )
    if len(members) < 2:
        raise ConfigError(f"{where} must be a list of two or more, but has {len(members)}")
    return LegacyConfig(path, str(path), tree, members)


def _read_member(stated: object, ensemble: Path, where: str) -> LegacyConfig:
    """A member that stands in the ensemble's file, or is named there by the path of its config."""
    if isinstance(stated, Mapping):
        member = LegacyConfig(ensemble, where, upper(stated, where))
    else:
        named = Path(str(stated))
        path = named if named.is_file() else ensemble.parent / named
        if not path.is_file():
            raise ConfigError(
                f"{where}: there is no file {named}, neither here nor beside {ensemble}"
            )
        member = LegacyConfig(path, str(path), read_upper(path))
    _check_architecture(member)
    if _is_ensemble(member.tree):
        raise ConfigError(f"{where} is an ensemble itself, which cannot be imported")
    return member


def _check_architecture(config: LegacyConfig) -> None:
    stated = config.tree.get("ARCHITECTURE")
    if stated is not None and str(stated).lower() not in _eras_by_name():
        raise ConfigError(
            f"{config.source}: ARCHITECTURE {stated!r} cannot be imported; those that can: "
            f"{', '.join(_NETWORKS)}"
        )


def _is_ensemble(tree: Section) -> bool:
    return str(tree.get("ARCHITECTURE")).lower() in _ENSEMBLES


def _eras_by_name() -> dict[str, frozenset[Era]]:
    return {name.lower(): eras for name, eras in _NETWORKS.items()}


def decide_era(config: LegacyConfig, asked: str | None) -> Era:
    """Which program trained a network, or the members of an ensemble.

    Args:
        config: Its config.
        asked: What the user says; None: nothing.

    Raises:
        ConfigError: If the files do not tell and the user neither, or the two contradict each other.
    """
    if asked is not None and asked not in ERAS:
        raise ConfigError(f"--from {asked!r} is unknown; valid: {', '.join(ERAS)}")
    clues = [clue for each in (config, *config.members) for clue in _clues(each)]
    possible = [era for era in ERAS if all(era in eras for _, eras in clues)]
    if not possible:  # a config that was used again with another program has the defaults of both
        names = [clue for clue in clues if "ARCHITECTURE" in clue[0]]
        possible = [era for era in ERAS if all(era in eras for _, eras in names)]
    if asked is not None:
        against = [said for said, eras in clues if asked not in eras]
        if asked not in possible:
            raise ConfigError(f"--from {asked} contradicts {against[0]}; {_valid(possible)}")
        return next(era for era in ERAS if era == asked)
    if len(possible) != 1:
        raise ConfigError(
            f"{config.source} does not tell which program trained it, and the same weights mean other "
            f"places in each; say it with --from; {_valid(possible)}"
        )
    return possible[0]


def _clues(config: LegacyConfig) -> list[tuple[str, frozenset[Era]]]:
    """What of a config only some programs wrote, and which."""
    clues = []
    stated = config.tree.get("ARCHITECTURE")
    if stated is not None:
        clues.append(
            (f"ARCHITECTURE {stated} in {config.source}", _eras_by_name()[str(stated).lower()])
        )
    data = section_of(config.tree, "DATA", config.source)
    for key, eras in _EVIDENCE.items():
        if key in data:
            clues.append((f"DATA/{key} in {config.source}", eras))
    return clues


def _valid(eras: Sequence[Era]) -> str:
    return f"valid: {', '.join(eras or ERAS)}"


def describe_network(
    config: LegacyConfig, era: Era, name: str, overrides: Sequence[str] = ()
) -> LegacyNetwork:
    """Read what the config of one network means.

    Args:
        config: Of a network, not of an ensemble.
        era: Which program trained it.
        name: For the experiment.
        overrides: ``path/to/key=value`` strings on our config; not on what the weights determine.

    Raises:
        ConfigError: If something is missing or wrong, or was never trained in that program.
    """
    source = config.source
    data = section_of(config.tree, "DATA", source)
    parameters = section_of(config.tree, "MODEL_PARAMS", source)
    if data.get("NORMALIZE_DATA", True) is False:
        raise ConfigError(
            f"{source}: DATA/NORMALIZE_DATA false cannot be imported: vocalocator stopped with an error "
            "before it trained so"
        )
    widths_mm = _arena_mm(data, era, source)
    head = legacy_head(parameters, era, widths_mm, source)
    tree = {
        "name": name,
        "data": {
            "crop_length": data.get("CROP_LENGTH", 8192),
            "evaluation_crop_length": _WHOLE_EVENT,
            "sample_rate_hz": data.get("SAMPLE_RATE", 125_000),
            "arena_mm": widths_mm,
            "keypoints": _keypoints(data, head),
        },
        "scaling": {
            "audio": {"kind": "gain", "gain": 1.0},  # the network normalizes its crop itself
            "location": _location_scaling(era, widths_mm, head, source),
        },
        "model": _model(config.tree, era, source),
        "head": dict(head.head),
        "loss": {"kind": "squared" if head.head["kind"] == "point" else "nll"},
        "training": {"precision": "float32"},
    }
    experiment = _with_overrides(tree, overrides, source)
    microphones = data.get("NUM_MICROPHONES", 4)
    setup = _setup(experiment, microphones, head, source)
    return LegacyNetwork(experiment, setup, head, (*head.notes, *_notes(data, source)))


def _arena_mm(data: Section, era: Era, source: str) -> list[float]:
    defaults = GERBILIZER if era == "gerbilizer" else VOCALOCATOR
    unit = data.get("ARENA_DIMS_UNITS")
    if unit is None and era == "gerbilizer":
        raise ConfigError(
            f"{source}: DATA/ARENA_DIMS_UNITS is missing, which Gerbilizer did not go without; "
            "add MM or CM"
        )
    return arena_mm(data.get("ARENA_DIMS", defaults["ARENA_DIMS"]), unit or "MM", source)


def _keypoints(data: Section, head: LegacyHead) -> list[str] | None:
    """Their names; None where the config does not tell.

    vocalocator took the nodes named in NODES_TO_LOAD in the order of the data file, so several names say
    nothing of which is which.
    """
    nodes = data.get("NODES_TO_LOAD")
    if head.num_keypoints == 1 and not nodes:
        return ["nose"]
    is_one = isinstance(nodes, list) and len(nodes) == 1 == head.num_keypoints
    return [str(nodes[0])] if is_one and isinstance(nodes, list) else None


def _location_scaling(
    era: Era, widths_mm: Sequence[float], head: LegacyHead, source: str
) -> dict[str, Any]:
    if era == "vocalocator-1.1":
        longest = max(widths_mm)
        if longest > max(widths_mm[: head.num_axes]):  # an arena higher than wide
            return {"kind": "gain", "gain": 2 / longest}
        return {"kind": "isotropic"}
    if head.num_axes > len(widths_mm):
        raise ConfigError(
            f"{source}: DATA/ARENA_DIMS must have {head.num_axes} widths for its OUTPUT_TYPE, but has "
            f"{len(widths_mm)}"
        )
    return {"kind": "per_axis"}


def _model(tree: Section, era: Era, source: str) -> dict[str, Any]:
    """The section ``model``."""
    defaults = GERBILIZER if era == "gerbilizer" else VOCALOCATOR
    data = section_of(tree, "DATA", source)
    parameters = section_of(tree, "MODEL_PARAMS", source)
    crop_length = data.get("CROP_LENGTH", 8192)
    kind = str(tree.get("ARCHITECTURE", defaults["ARCHITECTURE"])).lower()
    if kind == "wavenet":
        return {
            "kind": "legacy-wavenet",
            "num_blocks": parameters.get("NUM_BLOCKS", 10),
            "channels": parameters.get("CONV_CHANNELS", 64),
            "kernel_size": parameters.get("KERNEL_SIZE", 7),
            "crop_length": crop_length,
            "correlation_pairs": parameters.get("XCORR_PAIRS") or (),
            "correlation_length": parameters.get("XCORR_LENGTH", 256),
            "correlation_hidden": parameters.get("XCORR_HIDDEN", 512),
        }
    simple = {
        "kind": "legacy-simplenet",
        "activation": "gerbilizer" if era == "gerbilizer" else "vocalocator",
        **conv_lists(parameters, defaults, source),
        "batch_norm": parameters.get("USE_BATCH_NORM", True),
        "crop_length": crop_length,
    }
    if kind == "corrsimplenetwork":
        return simple | {
            "kind": "legacy-corrnet",
            "correlation_length": parameters.get("XCORR_LENGTH", 256),
            "hidden": parameters.get("CPS_HIDDEN_SIZE", 1024),
            "num_layers": parameters.get("CPS_NUM_LAYERS", 3),
        }
    has_correlations = era == "gerbilizer" and data.get("COMPUTE_XCORRS", False)
    return simple | {"correlations": has_correlations}


def _with_overrides(
    tree: dict[str, Any], overrides: Sequence[str], source: str
) -> ExperimentConfig:
    values = parse_overrides(overrides)
    for path in values:
        if path.split("/")[0] in _OF_THE_WEIGHTS:
            raise ConfigError(
                f"--set {path} cannot be changed: the weights were trained with what {source} says"
            )
    set_paths(tree, values, "--set")
    return validate(ExperimentConfig, tree, source)


def _setup(
    experiment: ExperimentConfig, microphones: object, head: LegacyHead, source: str
) -> RecordingSetup:
    data = experiment.data
    if not isinstance(microphones, int) or isinstance(microphones, bool) or microphones < 2:
        raise ConfigError(
            f"{source}: DATA/NUM_MICROPHONES must be 2 or more, but is {microphones!r}"
        )
    number = head.num_keypoints
    if data.keypoints is None:
        names = ",".join(["nose", "head"][:number])
        raise ConfigError(
            f"{source} does not tell which body points its network locates, and in which order: vocalocator "
            f"took that of the data file; say it with --set data/keypoints=[{names}]"
        )
    if len(data.keypoints) != number:
        raise ConfigError(
            f"data/keypoints must name {counted(number, 'body point')}, as many as {source} has in its "
            f"OUTPUT_TYPE, but names {', '.join(data.keypoints)}"
        )
    assert data.sample_rate_hz is not None
    assert data.arena_mm is not None
    return RecordingSetup(
        num_microphones=microphones,
        sample_rate_hz=data.sample_rate_hz,
        arena_mm=data.arena_mm,
        keypoints=data.keypoints,
        num_axes=head.num_axes,
    )


def _notes(data: Section, source: str) -> list[str]:
    if str(data.get("ARENA_DIMS_UNITS", "MM")).upper() != "CM":
        return []
    return [
        f"{source} gives the arena in CM, for which the program that trained this network predicted right "
        "only if the locations of its training file were in cm too; gerbil-tune evaluate shows it"
    ]
