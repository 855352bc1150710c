from pathlib import Path

import pytest

from gerbil_tune.config.space import boundary_configs, load_space

FOLDER = Path(__file__).parents[3] / "search_spaces"
SPACES = sorted([*FOLDER.glob("*.yaml"), *FOLDER.glob("*.yml")])


def test_there_are_spaces():
    assert "quick.yaml" in [path.name for path in SPACES]


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_a_shipped_space_is_valid(path):
    space = load_space(path)
    assert space.name == path.stem, "a study is named after its space, and found by its file's name"
    for config in boundary_configs(space, str(path)):
        assert config.training.epochs >= space.study.trial_scheduler.grace_epochs
        assert config.training.global_batch_size % 2 == 0, "so that two workers can share it"
