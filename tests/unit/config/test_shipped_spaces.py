from pathlib import Path

import pytest
import yaml

from gerbil_tune.config.load import read_tree
from gerbil_tune.config.space import boundary_configs, load_space

FOLDER = Path(__file__).parents[3] / "search_spaces"
SPACES = sorted([*FOLDER.glob("*.yaml"), *FOLDER.glob("*.yml")])
README = (FOLDER / "README.md").read_text()
EXAMPLES = [block.split("```")[0] for block in README.split("```yaml\n")[1:]]


def test_there_are_spaces():
    assert {path.stem for path in SPACES} >= {
        "quick", "architecture", "scaling", "features", "augmentation", "full",
    }  # fmt: skip
    assert all(f"`{path.name}`" in README for path in SPACES)


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_a_shipped_space_is_valid(path):
    space = load_space(path)
    assert space.name == path.stem, "a study is named after its space, and found by its file's name"
    for config in boundary_configs(space, str(path)):
        assert config.training.epochs >= space.study.trial_scheduler.grace_epochs
        assert config.training.global_batch_size % 2 == 0, "so that two workers can share it"


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_a_shipped_space_says_what_it_costs(path):
    comment = path.read_text().partition("\nname:")[0]
    assert all(word in comment for word in ("parameters", "trials", "GFLOP"))


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_the_examples_of_the_format_are_valid(example, write_space):
    tree = yaml.safe_load(example)
    tree.setdefault("name", "example")
    rate = {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}
    tree.setdefault("parameters", {"optimizer/learning_rate": rate})
    space = load_space(write_space(yaml.safe_dump(tree)))
    kept = read_tree(write_space(example))["study"]
    stored = space.study.model_dump(mode="json")
    for section in ("sampler", "trial_scheduler"):
        assert stored[section].items() >= kept.get(section, {}).items()


def test_the_format_names_every_kind_and_key():
    from gerbil_tune.config.study import (
        AshaConfig,
        ConstraintsConfig,
        MedianConfig,
        PlacementConfig,
        PopulationConfig,
        SamplerConfig,
        StudyConfig,
    )

    sections = (
        AshaConfig, ConstraintsConfig, MedianConfig, PlacementConfig, PopulationConfig, SamplerConfig,
        StudyConfig,
    )  # fmt: skip
    keys = {key for section in sections for key in section.model_fields}
    assert [key for key in keys if f"`{key}`" not in README and f"{key}:" not in README] == []
