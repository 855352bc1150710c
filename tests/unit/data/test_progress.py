"""Progress on standard error."""

import pytest

from gerbil_tune.data import progress


def test_long_work_is_a_line_a_tenth_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_LEAST_S_BETWEEN_LINES", -1.0)
    with progress.progress_bar(200, doing="simulating") as advance:
        for _ in range(100):
            advance(2)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[4].startswith("simulating: 100 events of 200 events")


def test_bytes_are_shown_as_megabytes(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_LEAST_S_BETWEEN_LINES", -1.0)
    with progress.progress_bar(2_000_000, doing="packing", unit="bytes") as advance:
        advance(1_000_000)
    assert capsys.readouterr().err.startswith("packing: 1 MB of 2 MB in ")


@pytest.mark.parametrize("show", [True, False])
def test_short_work_and_unwatched_work_say_nothing(capsys, show):
    with progress.progress_bar(200, doing="simulating", show=show) as advance:
        advance(200)
    assert not capsys.readouterr().err
