from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "gerbil_tune").rglob("*.py"))
LONGEST = 400
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "tools"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_short(path):
    assert len(path.read_text().splitlines()) <= LONGEST


def test_a_module_is_named_for_what_it_holds():
    assert [path for path in MODULES if path.stem in VAGUE or path.parent.name in VAGUE] == []
