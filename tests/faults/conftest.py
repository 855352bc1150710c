"""The undisturbed search that all faults are compared with."""

from pathlib import Path

import pytest

from tests.faults.harness import (
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
