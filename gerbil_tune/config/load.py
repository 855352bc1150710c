"""Read configs: YAML or JSON(5), overrides by path, errors in one sentence."""

import copy
import json
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.errors import ConfigError

Scalar = str | int | float | bool | None
_LONGEST_SHOWN = 60
_Model = TypeVar("_Model", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """PyYAML with two surprises taken out.

    Of two equal keys it keeps the last in silence; here they are an error. It reads 1e-4 as a string, for
    YAML 1.1 wants 1.0e-4; here it is a number, as in YAML 1.2.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue  # refused below
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+\Z"),
    list("-+.0123456789"),
)


def read_tree(path: Path) -> dict[str, Any]:
    """Read a YAML, JSON or JSON5 file into a dictionary.

    Raises:
        ConfigError: If the file cannot be read or parsed, or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{path} cannot be read: {reason}") from None
    try:
        tree = _parse(text, path.suffix.lower())
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} cannot be parsed: {reason}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold a mapping, but holds {type(tree).__name__}")
    return tree


def _parse(text: str, suffix: str) -> Any:
    if suffix in (".json", ".json5"):
        import json5

        return json5.loads(text, allow_duplicate_keys=False)
    return yaml.load(text, Loader=_Loader)


def load_experiment(path: Path | None, overrides: Iterable[str] = ()) -> ExperimentConfig:
    """Read an experiment config; without a file, the defaults. See ``load_config``."""
    return load_config(ExperimentConfig, path, overrides)


def load_config(kind: type[_Model], path: Path | None, overrides: Iterable[str] = ()) -> _Model:
    """Read a config of some kind; without a file, the defaults.

    Args:
        kind: Its class.
        path: YAML, JSON or JSON5, or None.
        overrides: ``path/to/key=value`` strings; values are parsed as YAML.

    Raises:
        ConfigError: On any mistake, naming file, path, value and what is valid.
    """
    tree = read_tree(path) if path is not None else {}
    set_paths(tree, parse_overrides(overrides), "--set")
    return validate(kind, tree, source=str(path) if path is not None else "config")


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """Read ``path/to/key=value`` strings into values by path.

    Raises:
        ConfigError: If a string has no ``=``, or its value is no YAML.
    """
    values: dict[str, Any] = {}
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path:
            raise ConfigError(
                f"--set {override!r} must be path/to/key=value, for example training/epochs=50"
            )
        try:
            values[path] = yaml.load(text, Loader=_Loader)
        except (yaml.YAMLError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"--set {override!r} cannot be parsed as YAML: {reason}") from None
    return values


def fill_kinds(tree: dict[str, Any]) -> None:
    """Name the default kind in every section that gives options of a choice without naming it."""
    for path, default in _default_kinds().items():
        *parents, leaf = path.split("/")
        section: Any = tree
        for key in (*parents, leaf):
            section = section.get(key) if isinstance(section, dict) else None
        if isinstance(section, dict):
            section.setdefault("kind", default)


def _default_kinds() -> dict[str, str]:
    leaves = flatten(ExperimentConfig())
    return {
        path.removesuffix("/kind"): str(kind)
        for path, kind in leaves.items()
        if path.endswith("/kind")
    }


def set_paths(tree: dict[str, Any], values: Mapping[str, Any], source: str) -> None:
    """Set leaves of a nested dictionary by their slash paths.

    Kinds come first, and another kind than the one in force drops the old one's options.

    Raises:
        ConfigError: If a path runs through something that is not a section.
    """
    fill_kinds(tree)
    for path in sorted(values, key=lambda path: not path.endswith("/kind")):
        _set_path(tree, path, values[path], source)
    fill_kinds(tree)


def _set_path(tree: dict[str, Any], path: str, value: Any, source: str) -> None:
    *parents, leaf = path.split("/")
    section = tree
    for depth, key in enumerate(parents, start=1):
        section = section.setdefault(key, {})
        if not isinstance(section, dict):
            raise ConfigError(
                f"{source}: {path} cannot be set, for {'/'.join(parents[:depth])} is "
                f"{_shown(section)}, not a section"
            )
    if leaf == "kind" and section.get("kind", value) != value:
        section.clear()
    section[leaf] = value


def compose(base: Mapping[str, Any], values: Mapping[str, Any], source: str) -> ExperimentConfig:
    """Build a config from a base tree and leaf values by path; kinds are set before their options."""
    tree = copy.deepcopy(dict(base))
    set_paths(tree, values, source)
    return validate(ExperimentConfig, tree, source)


def validate(model: type[_Model], tree: Mapping[str, Any], source: str) -> _Model:
    """Validate a tree, turning pydantic's report into one sentence.

    Raises:
        ConfigError: Naming source and path, what is wrong, what was received; and how many more mistakes.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{source}: {describe(error, tree)}") from None


def describe(error: ValidationError, tree: Mapping[str, Any]) -> str:
    """One sentence about the first mistakes of a validation report."""
    problems = error.errors(include_url=False)
    sentences = [_sentence(problem, tree) for problem in problems[:3]]
    more = len(problems) - len(sentences)
    return "; ".join(sentences) + (f"; and {more} more" if more > 0 else "")


def _sentence(problem: ErrorDetails, tree: Mapping[str, Any]) -> str:
    path = readable_path(problem["loc"], tree)
    context = problem.get("ctx", {})
    discriminator = str(context.get("discriminator", "")).strip("'")
    match problem["type"]:
        case "unknown_key":
            prefix = f"{path}/" if problem["loc"] else ""
            unknown = ", ".join(f"{prefix}{key}" for key in context["unknown"])
            are = "is not a known key" if len(context["unknown"]) == 1 else "are not known keys"
            return f"{unknown} {are}; valid: {context['valid']}"
        case "union_tag_invalid":
            valid = context["expected_tags"].replace("'", "")
            return f"{path}/{discriminator} is {context['tag']!r}; valid: {valid}"
        case "union_tag_not_found":
            return f"{path}/{discriminator} is missing"
        case "missing":
            return f"{path} is missing"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"{path} must be a section (a mapping), but is {_shown(problem['input'])}"
        case "value_error":  # from a validator of the schema, which says what it received
            message = problem["msg"].removeprefix("Value error, ")
            return f"{path}: {message}"
        case _:
            message = f"{problem['msg'][:1].lower()}{problem['msg'][1:]}"
            message = message.replace("tuple", "list").replace(" after validation", "")
            return f"{path}: {message} (received {_shown(problem['input'])})"


def _shown(value: object) -> str:
    """A value as a config file writes it, cut short."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        text = str(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def readable_path(location: Sequence[int | str], tree: Mapping[str, Any]) -> str:
    """Join a pydantic location with slashes, leaving out the union tags, which are not in the file."""
    parts: list[str] = []
    section: Any = tree
    is_tagged = False
    for key in location:
        if isinstance(section, Mapping) and not is_tagged:
            is_tagged = key in (section.get("kind"), section.get("type"))
            if is_tagged:
                continue
        parts.append(str(key))
        is_tagged = False
        if isinstance(section, Mapping):
            section = section.get(key)
        elif isinstance(section, list | tuple) and isinstance(key, int) and key < len(section):
            section = section[key]
        else:
            section = None
    return "/".join(parts) or "the file"


def flatten(config: BaseModel) -> dict[str, Scalar]:
    """All leaves of a config by slash path; lists become JSON text, as trackers take scalars only."""
    leaves: dict[str, Scalar] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{prefix}/{key}" if prefix else key, inner)
        else:
            leaves[prefix] = json.dumps(value) if isinstance(value, list) else value

    walk("", config.model_dump(mode="json"))
    return leaves
