"""Read configs: YAML or JSON(5), overrides by path, errors in one sentence."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.errors import ConfigError

Scalar = str | int | float | bool | None
_Model = TypeVar("_Model", bound=BaseModel)


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys in silence; here they are an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_tree(path: Path) -> dict[str, Any]:
    """Read a YAML, JSON or JSON5 file into a dictionary.

    Raises:
        ConfigError: If the file cannot be read or parsed, or holds something else.
    """
    try:
        text = path.read_text()
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
    return yaml.load(text, Loader=_UniqueKeyLoader)


def load_experiment(path: Path | None, overrides: Iterable[str] = ()) -> ExperimentConfig:
    """Read an experiment config; without a file, the defaults.

    Args:
        path: YAML, JSON or JSON5, or None.
        overrides: ``path/to/key=value`` strings; values are parsed as YAML.

    Raises:
        ConfigError: On any mistake, naming file, path, value and what is valid.
    """
    tree = read_tree(path) if path is not None else {}
    apply_overrides(tree, overrides)
    fill_kinds(tree)
    return validate(ExperimentConfig, tree, source=str(path) if path is not None else "config")


def apply_overrides(tree: dict[str, Any], overrides: Iterable[str]) -> None:
    """Set ``path/to/key=value`` strings in a tree.

    Raises:
        ConfigError: If a string has no ``=`` or runs through something that is not a section.
    """
    for override in overrides:
        path, equals, value = override.partition("=")
        if not equals or not path:
            raise ConfigError(
                f"--set {override!r} must be path/to/key=value, for example training/epochs=50"
            )
        set_path(tree, path, yaml.safe_load(value))


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


def set_path(tree: dict[str, Any], path: str, value: Any) -> None:
    """Set one leaf of a nested dictionary by its slash path.

    Choosing another ``kind`` drops the old kind's siblings: they belong to it.
    """
    *parents, leaf = path.split("/")
    section = tree
    for key in parents:
        section = section.setdefault(key, {})
        if not isinstance(section, dict):
            raise ConfigError(f"{path}: {key} is a value, not a section, so it has no {leaf}")
    if leaf == "kind" and section.get("kind", value) != value:
        section.clear()
    section[leaf] = value


def compose(base: Mapping[str, Any], values: Mapping[str, Any], source: str) -> ExperimentConfig:
    """Build a config from a base tree and leaf values by path; kinds are set before their options."""
    tree: dict[str, Any] = json.loads(json.dumps(base))
    for path in sorted(values, key=lambda path: (not path.endswith("/kind"), path)):
        set_path(tree, path, values[path])
    fill_kinds(tree)
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
    sentences = []
    for problem in error.errors(include_url=False)[:3]:
        path = readable_path(problem["loc"], tree)
        if problem["type"] == "extra_forbidden":
            sentences.append(f"{path} is not a known key")
        elif problem["type"] == "union_tag_invalid":
            context = problem.get("ctx", {})
            expected = str(context.get("expected_tags", "")).replace("'", "")
            sentences.append(f"{path}/kind is {context.get('tag')!r}; valid: {expected}")
        else:
            received = problem.get("input")
            shown = (
                ""
                if isinstance(received, Mapping | Sequence) and not isinstance(received, str)
                else f" (received {received!r})"
            )
            message = problem["msg"].removeprefix("Value error, ")
            sentences.append(f"{path}: {message[:1].lower()}{message[1:]}{shown}")
    more = error.error_count() - len(sentences)
    return "; ".join(sentences) + (f"; and {more} more" if more > 0 else "")


def readable_path(location: Sequence[int | str], tree: Mapping[str, Any]) -> str:
    """Join a pydantic location with slashes, leaving out the union tags that are not in the file."""
    parts: list[str] = []
    section: Any = tree
    for position, key in enumerate(location):
        is_last = position == len(location) - 1
        if isinstance(section, Mapping) and key not in section and not is_last:
            continue
        parts.append(str(key))
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
