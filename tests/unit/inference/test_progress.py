import pytest

from gerbil_tune.inference.progress import progress_line, show_progress


@pytest.mark.parametrize(
    ("done", "num_events", "elapsed_s", "line"),
    [
        (500, 2000, 2.0, "500 of 2,000 events, 250 events/s, 0:00:06 left"),
        (1, 100_000, 0.5, "1 of 100,000 events, 2 events/s, 13:53:20 left"),
        (7, 7, 0.0, "7 of 7 events, 7,000,000,000 events/s, 0:00:00 left"),
    ],
)
def test_a_line_says_how_many_how_fast_and_how_long(done, num_events, elapsed_s, line):
    assert progress_line(done, num_events, elapsed_s) == line


def test_away_from_a_terminal_lines_are_few(capsys):
    with show_progress(100) as advance:
        for _ in range(100):
            advance(1)
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert line.startswith("100 of 100 events, ")
