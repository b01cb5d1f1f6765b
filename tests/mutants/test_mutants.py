"""The mutation tester itself: what it changes, and that it tells a test that notices from one that doesn't."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from check import TESTS
from mutations import mutants_of

ROOT = Path(__file__).resolve().parents[2]
SOURCE = '''import math
from typing import Protocol


class Kind(Protocol):
    size: int = 3


@staticmethod
def length(x: float, y: float = 4.0) -> float:
    """The length of a vector."""
    if x < 0:
        x = abs(x)
    return math.hypot(x, y)
'''


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tests/mutants/check.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)


def test_a_mutant_is_one_change() -> None:
    mutants = {str(mutant) for mutant in mutants_of(SOURCE)}
    assert mutants >= {
        "@staticmethod  ->  ",
        "def length(x: float, y: float = 4.0) -> float:  ->  def length(x: float, y: float = 5.0) -> float:",
        "if x < 0:  ->  if x <= 0:",
        "if x < 0:  ->  if x < 1:",
        "if x < 0:  ->  if (not (x < 0)):",
        "x = abs(x)  ->  x = None",
        "x = abs(x)  ->  x = (x)",
        "return math.hypot(x, y)  ->  return math.hypot(x, )",
        "return math.hypot(x, y)  ->  return (x)",
    }
    assert not any("Protocol" in mutant or "size" in mutant or '"""' in mutant for mutant in mutants)
    for mutant in mutants_of(SOURCE):
        changed = [old != new for old, new in zip(SOURCE.splitlines(), mutant.code.splitlines(), strict=False)]
        assert mutant.code != SOURCE and changed.index(True) == mutant.line - 1


@pytest.mark.slow
def test_a_change_that_no_test_notices_fails_the_command(tmp_path: Path) -> None:
    (tmp_path / "vectors.py").write_text("def length(x: float) -> float:\n    return x if x > 0 else -x\n")
    tests = tmp_path / "test_vectors.py"
    pair = f"{tmp_path / 'vectors.py'}={tests}"
    begin = "from vectors import length\n\n\ndef test_length():\n"
    tests.write_text(begin + "    assert length(2) == 2 and length(-3) == 3\n")
    noticed = run(pair)
    survivor = "vectors.py:2: survives: return x if x > 0 else -x  ->  return x if x >= 0 else -x"
    assert survivor in noticed.stdout, "0 is its own opposite, which is a reason to survive, but none is given"
    assert noticed.returncode == 1
    tests.write_text(begin + "    assert length(2) == 2\n")
    missed = run(pair)
    assert missed.stdout.count("survives:") > noticed.stdout.count("survives:") and missed.returncode == 1
    tests.write_text(begin + "    assert length(2) == 3\n")
    assert "must pass before" in run(pair).stderr
    tests.write_text("def test_nothing():\n    pass\n")
    assert "must import" in run(pair).stderr


def test_a_sample_of_the_core_s_mutants_is_killed() -> None:
    result = run("pddm_lab/training/losses.py", "--every", "13")
    assert "6 mutants, 6 killed" in result.stdout, result.stdout + result.stderr
    assert not result.returncode


def test_every_module_and_its_tests_are_there() -> None:
    for file, tests in TESTS.items():
        assert (ROOT / file).is_file() and (ROOT / tests).is_file()
