"""The table of faults at the end of a test run, whichever process ran the tests."""

from collections.abc import Generator
from dataclasses import asdict, fields
from typing import Any

import pytest

from tests.faults.harness import FAULTS, Fault

_PROPERTY = "fault"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    report = yield
    if report.when == "teardown":
        report.user_properties += [(_PROPERTY, asdict(fault)) for fault in FAULTS]
        FAULTS.clear()
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what was done to searches, and what came of it."""
    reports = [report for group in terminalreporter.stats.values() for report in group]
    faults = [
        value
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == _PROPERTY and report.when == "teardown"
    ]
    if not faults:
        return
    names = [field.name for field in fields(Fault)]
    rows = [names, *([str(fault[name]) for name in names] for fault in faults)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(names))]
    terminalreporter.section("faults injected")
    for row in rows:
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        terminalreporter.write_line(line.rstrip())
