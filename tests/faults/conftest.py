"""All points with --all-faults, else a sample of each operation; how many were broken off stands at the end."""

from __future__ import annotations

import pytest

SAMPLE = 4
"""Points of an operation and mode in a normal test run."""
_COUNTS = pytest.StashKey[dict[str, int]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-faults", action="store_true", help="break off every operation at every point")


@pytest.fixture
def faults_size(request: pytest.FixtureRequest) -> int | None:
    """How many points of an operation `sweep` breaks off; None for all."""
    return None if request.config.getoption("--all-faults", default=False) else SAMPLE


@pytest.fixture
def count_points(request: pytest.FixtureRequest):
    """Adds points that passed to the count at the end: count_points(mode, number)."""

    def add(mode: str, number: int) -> None:
        counts = request.config.stash.setdefault(_COUNTS, {})
        counts[mode] = counts.get(mode, 0) + number

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if counts := config.stash.get(_COUNTS, {}):
        parts = ", ".join(f"{mode} {number:,}" for mode, number in counts.items())
        terminalreporter.write_line(f"File operations broken off: {sum(counts.values()):,} ({parts})")
