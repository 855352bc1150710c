"""The undisturbed search that all faults are compared with, and the table of faults."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from tests.faults.harness import (
    FAULTS,
    Fault,
    FinalState,
    RunningSearch,
    assert_consistent,
    final_state,
    make_site,
    search_arguments,
)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``space.yaml`` and ``data/``; studies in it need names of their own."""
    return make_site(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="session")
def undisturbed(site: Path) -> FinalState:
    """What the search of ``space.yaml`` leaves where nothing goes wrong."""
    with RunningSearch(site, *search_arguments("undisturbed")) as search:
        search.finish()
    state = final_state(site, "undisturbed")
    assert_consistent(state)
    return state


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what was done to searches, and what came of it."""
    if not FAULTS:
        return
    names = [field.name for field in fields(Fault)]
    rows = [names, *([str(getattr(fault, name)) for name in names] for fault in FAULTS)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(names))]
    terminalreporter.section("faults injected")
    for row in rows:
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        terminalreporter.write_line(line.rstrip())
