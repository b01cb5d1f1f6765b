"""A watched folder: when an update is due, what is logged, and that nothing is tried twice."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from pddm_lab import cli
from pddm_lab.errors import ConfigError, DataError
from pddm_lab.update import watch as watching
from pddm_lab.update.continued import Choices
from pddm_lab.update.watch import is_due, seconds_of, watch


@pytest.mark.parametrize(
    ("new", "tried", "waited", "every", "after", "due"),
    [
        (0, 0, 9999, 60, 1, False), (5, 0, 59, 60, 0, False), (5, 0, 60, 60, 0, True), (5, 5, 60, 60, 0, False),
        (500, 0, 0, 0, 500, True), (499, 0, 9999, 0, 500, False), (600, 200, 0, 0, 500, False),
        (5, 0, 60, 60, 500, True),
    ],
)  # fmt: skip
def test_when_an_update_is_due(new: int, tried: int, waited: float, every: float, after: int, due: bool) -> None:
    assert is_due(new, tried, waited, every, after) is due


def test_durations() -> None:
    assert [seconds_of(text) for text in ("", "90s", "30m", "1h", "2d")] == [0, 90, 1800, 3600, 172_800]
    for wrong in ("1", "h", "0h", "1.5h", "-1h", "1 week"):
        with pytest.raises(ConfigError, match="--every expects a duration"):
            seconds_of(wrong)


class Ended(BaseException):
    """Ends a watch."""


def test_a_watch_updates_once_for_the_same_pictures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known = ["a/0.png"]
    lines: list[str] = []
    calls: list[int] = []
    rounds: list[int] = []

    def run(name: str) -> Any:
        gallery = SimpleNamespace(items=pd.DataFrame({"id": known}))
        facts = {"updated": {"new_items": 2}}
        return SimpleNamespace(name=name, path=tmp_path, info=facts, galleries=lambda: ["c"], gallery=lambda _: gallery)

    def update(first: Any, read: Any, choices: Any, bar: Any, tried: int) -> Any:
        calls.append(tried)
        if len(calls) == 1:
            raise DataError("nothing trains.")
        verdict = SimpleNamespace(better=len(calls) == 3, overall={"before": 0.5, "after": 0.75}.__getitem__)
        return SimpleNamespace(run=run("demo-update-1"), source=run("demo"), verdict=verdict)

    def sleep(seconds: float) -> None:
        rounds.append(len(calls))
        (tmp_path / "a").mkdir(exist_ok=True)
        if len(rounds) in (1, 3, 5):
            for number in range(2 * len(rounds), 2 * len(rounds) + 3):
                (tmp_path / "a" / f"{number}.png").touch()
        if len(rounds) == 7:
            raise Ended

    monkeypatch.setattr(watching, "update_run", update)
    monkeypatch.setattr(watching, "serving", run)
    monkeypatch.setattr(watching, "first_of", lambda _: run("demo"))
    with pytest.raises(ConfigError, match="--watch expects --every"):
        watch(run("demo"), tmp_path, Choices())
    with pytest.raises(Ended):
        watch(run("demo"), tmp_path, Choices(), after=2, log=lines.append, sleep=sleep)
    assert (rounds, calls) == ([0, 1, 1, 2, 2, 3, 4], [3, 6, 9, 9]) and all(line.count("\n") == 0 for line in lines)
    assert lines[0].endswith("no update: nothing trains.")
    assert lines[1].endswith("demo still serves; demo-update-1 has 2 new items, R@1 50.0 % before and 75.0 % now.")
    assert "demo-update-1 serves now" in lines[2]


def test_the_command_names_what_lacks(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for words, message in ((["--watch", "x", "--rollback"], "expects one of"), (["--every", "1h"], "expects one of")):
        with pytest.raises(SystemExit):
            cli.main(["update", "demo", "--runs-root", str(tmp_path), *words])
        assert message in capsys.readouterr().err


def test_pictures_that_were_tried_and_then_added_otherwise_count_no_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known, calls, rounds = list[str](), list[int](), list[int]()
    run = SimpleNamespace(galleries=lambda: ["c"], gallery=lambda _: SimpleNamespace(items=pd.DataFrame({"id": known})))

    def update(*arguments: Any) -> Any:
        calls.append(arguments[-1])
        raise DataError("nothing trains.")

    def sleep(seconds: float) -> None:
        rounds.append(len(rounds))
        if len(rounds) == 2:  # `pddm-lab gallery add` adds them
            known.extend(["a/0.png", "a/1.png"])
        elif len(rounds) == 3:
            for number in (2, 3):
                (tmp_path / "a" / f"{number}.png").touch()
        elif len(rounds) == 5:
            raise Ended

    (tmp_path / "a").mkdir()
    for number in (0, 1):
        (tmp_path / "a" / f"{number}.png").touch()
    monkeypatch.setattr(watching, "update_run", update)
    monkeypatch.setattr(watching, "serving", lambda _: run)
    monkeypatch.setattr(watching, "first_of", lambda _: SimpleNamespace(path=tmp_path))
    with pytest.raises(Ended):
        watch(run, tmp_path, Choices(), after=2, log=lambda _: None, sleep=sleep)  # type: ignore[arg-type]
    assert calls == [2, 2]
