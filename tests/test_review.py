"""Tags, slices and the gain of corrections, against slow loops and known values."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from pddm_lab.analysis.lead import Judged
from pddm_lab.errors import DataError, RunError
from pddm_lab.gallery import changes
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.review import gain, tags
from pddm_lab.review.gain import KEPT, Gain, gains, kept_gains, sentence
from pddm_lab.review.slices import as_table, columns, slices
from pddm_lab.runs.compare import before_corrections
from pddm_lab.runs.run import Run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tags.tags_file(tmp_path, "emoji")


def test_tags_are_made_extended_renamed_and_removed(file: Path) -> None:
    assert tags.read_tags(file) == {}
    assert tags.tag(file, " odd ", ["b", "a", "b"]) == ["b", "a"]
    assert tags.tag(file, "odd", ["c", "a"]) == ["b", "a", "c"]
    tags.tag(file, "Blurred", ["x"])
    assert list(tags.read_tags(file)) == ["Blurred", "odd"]
    assert tags.untag(file, "odd", ["a", "none"]) == ["b", "c"]
    tags.rename(file, "odd", "strange ünï")
    assert tags.read_tags(file) == {"Blurred": ["x"], "strange ünï": ["b", "c"]}
    assert tags.untag(file, "Blurred", ["x"]) == []
    tags.remove(file, "strange ünï")
    assert tags.read_tags(file) == {}


def test_wrong_names_and_a_damaged_file_lose_nothing(file: Path) -> None:
    tags.tag(file, "odd", ["a"])
    tags.tag(file, "other", ["b"])
    before = file.read_bytes()
    for wrong in ("", "  ", "x" * 61, "a\nb"):
        with pytest.raises(DataError, match="1 to 60 characters"):
            tags.tag(file, wrong, ["c"])
    with pytest.raises(DataError, match="already"):
        tags.rename(file, "odd", "other")
    for change in (lambda: tags.remove(file, "add"), lambda: tags.rename(file, "add", "new")):
        with pytest.raises(DataError, match="Did you mean 'odd'"):
            change()
    assert file.read_bytes() == before
    for text in ("{", '{"format": 2, "tags": {}}', '{"format": 1, "tags": {"a": "b"}}', '{"format": 1, "tags": []}'):
        file.write_text(text)
        with pytest.raises(RunError, match=r"emoji\.json"):
            tags.tag(file, "new", ["c"])
        assert file.read_text() == text


def judged() -> tuple[Judged, pd.DataFrame]:
    """24 queries of 6 classes with metadata, half of them right by D, and all by L."""
    items = pd.DataFrame({
        "id": [f"item {n}" for n in range(30)], "label": np.arange(30) % 6,
        "class_name": [f"class {n % 6}" for n in range(30)], "metadata.style": ["a", "b", ""] * 10,
    })  # fmt: skip
    rows = np.arange(3, 27)
    right = {"euclidean": np.arange(24) % 2.0, "local": np.ones(24)}
    precision = {"euclidean": np.linspace(0, 1, 24), "local": np.linspace(0.5, 1, 24)}
    return Judged(rows, precision, right, 24), items


def test_slices_are_the_means_of_their_queries_with_intervals() -> None:
    of, items = judged()
    some = {"first": [f"item {n}" for n in range(10)], "none of the queries": ["item 0"], "gone": ["no item"]}
    assert columns(items, some) == ["tag", "style", "class"] and columns(items, {}) == ["style", "class"]
    for by, expected in (
        ("tag", {"first": range(7), "no tag": range(7, 24)}),
        ("style", {name: range(start, 24, 3) for start, name in enumerate(["a", "b", "(empty)"])}),
        ("class", {f"class {n % 6}": range(n - 3, 24, 6) for n in range(3, 9)}),
    ):
        table = as_table(slices(of, items, by, some))
        assert set(table["name"]) == {"all queries", *expected}
        for row in table.to_dict("records"):
            places = list(expected.get(row["name"], range(24)))
            name = {"D": "euclidean", "L": "local"}[row["similarity"]]
            assert row["queries"] == len(places)
            assert row["recall"] == pytest.approx(sum(of.right[name][at] for at in places) / len(places))
            assert row["map_at_r"] == pytest.approx(sum(of.precision[name][at] for at in places) / len(places))
            if by == "class" and row["name"] != "all queries":
                assert row["classes"] == 1 and np.isnan(row["map_low"])
            else:
                assert row["map_low"] < row["map_at_r"] < row["map_high"]
    with pytest.raises(DataError, match=r"Unknown column 'styel'\. Did you mean 'style'"):
        slices(of, items, "styel", {})
    assert "tag" not in columns(items, {})


class Fake:
    """A run with one gallery of points on a line, without files."""

    def __init__(self, name: str, ids: list[str], labels: list[int], at: list[float], roles: list[str]) -> None:
        self.name = name
        frame = pd.DataFrame({"id": ids, "label": labels, "role": roles})
        features = np.array(at, dtype=np.float32)[:, None]
        self._gallery = _Gallery(frame, features)

    def protocols(self) -> list[str]:
        return ["known"]

    galleries = protocols

    def gallery(self, _name: str):
        return self._gallery


class _Gallery:
    protocol, pretrained = "known", None

    def __init__(self, items: pd.DataFrame, features: np.ndarray) -> None:
        self.items, self.features = items, features

    def __len__(self) -> int:
        return len(self.items)

    def rows(self, role: str) -> np.ndarray:
        return np.flatnonzero(self.items["role"].isin([role, "both"]))


def test_a_gain_is_of_the_same_corrected_queries_by_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gain, "rivals_of", lambda run: ())
    rng = np.random.default_rng(0)
    ids = [f"item {n}" for n in range(40)]
    roles = np.where(np.arange(40) < 14, "query", "gallery").tolist()
    wrong, right = rng.integers(0, 4, 40), np.arange(40) % 4
    places = {"before": rng.normal(size=40) + right, "after": rng.normal(size=40) * 0.3 + 2 * right}
    before = Fake("before", ids, wrong.tolist(), places["before"].tolist(), roles)
    order = rng.permutation(38)  # the later run lists two fewer items, in another order, and a query that is new to it
    roles_after = [*roles[:30], "query", *roles[31:]]
    after = Fake(
        "after", [ids[n] for n in order], right[order].tolist(), places["after"][order].tolist(),
        [roles_after[n] for n in order],
    )  # fmt: skip
    measured = {one.measure: one for one in gains(before, after)}  # type: ignore[arg-type]
    searched = [n for n in range(38) if roles_after[n] == "gallery"]
    expected: dict[str, list[tuple[float, float]]] = {"before": [], "after": []}
    for run, at in places.items():
        for query in range(14):
            ranked = sorted(searched, key=lambda n: abs(np.float32(at[n]) - np.float32(at[query])))
            relevant = sum(right[n] == right[query] for n in searched)
            hits = [right[n] == right[query] for n in ranked[:relevant]]
            precision = sum(sum(hits[: k + 1]) / (k + 1) for k in range(relevant) if hits[k]) / relevant
            expected[run].append((float(hits[0]), precision))
    for column, measure in enumerate(("recall@1", "map@r")):
        one = measured[measure]
        assert one.queries == 14 and one.classes == 4
        assert one.before == pytest.approx(np.mean([of[column] for of in expected["before"]]))
        assert one.after == pytest.approx(np.mean([of[column] for of in expected["after"]]))
        assert one.low <= one.difference <= one.high
    strangers = Fake("other", [f"x{n}" for n in range(40)], wrong.tolist(), places["before"].tolist(), roles)
    monkeypatch.setattr(gain, "rivals_of", lambda run: ("local",))
    monkeypatch.setattr(gain, "_scorer", lambda *_: pytest.fail("there is nothing to rank"))
    with pytest.raises(RunError, match="no query in common"):
        gains(strangers, after)  # type: ignore[arg-type]


def test_a_run_gains_nothing_on_itself(local_run) -> None:
    steps: list[float] = []
    measured = gains(local_run, local_run, lambda done, total, what: steps.append(done / total))
    assert {(one.protocol, one.similarity) for one in measured} == {
        (protocol, name) for protocol in ("unseen", "known") for name in ("euclidean", "pddm", "local")
    }
    assert steps == sorted(steps) and steps[-1] == 1
    for one in measured:
        assert one.difference == one.low == one.high == 0 and one.sign == 0
        of = local_run.info["metrics"][one.protocol][one.similarity]
        assert one.after == pytest.approx(of[one.measure], abs=0.02), one
    assert "may be chance: +0.0 points (+0.0 to +0.0) of R@1 by D" in sentence(measured[0])


def test_a_gain_is_kept_until_a_run_changes(local_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(local_run.path, tmp_path / "later")
    later, small = Run.open(tmp_path / "later"), Gain("unseen", "local", "map@r", 0.5, 0.6, np.nan, np.nan, 10, 1)
    monkeypatch.setattr(gain, "gains", lambda *_: [small])
    assert kept_gains(local_run, later) == [small]
    monkeypatch.setattr(gain, "gains", lambda *_: pytest.fail("it was kept"))
    (again,) = kept_gains(local_run, later)
    assert repr(again) == repr(small)  # NaN is kept, and isn't equal to itself
    monkeypatch.setattr(gain, "gains", lambda *_: [])
    changed = later.path / "gallery" / "unseen"
    changes.remove(Gallery.open(changed), [str(later.gallery("unseen").items["id"].iloc[0])])
    assert kept_gains(local_run, Run.open(later.path)) == []
    (later.path / KEPT).write_text('{"key": 5}')
    assert kept_gains(local_run, Run.open(later.path)) == []


def test_sentences_say_what_the_interval_allows() -> None:
    def of(after: float, low: float, high: float, classes: int = 5) -> str:
        return sentence(Gain("unseen", "local", "map@r", 0.5, after, low, high, 10, classes))

    assert of(0.6, 0.05, 0.15) == (
        "On classes it has never met, L finds 10.0 points (5.0 to 15.0) more MAP@R with the corrections than without."
    )
    assert "5.0 to 15.0) less MAP@R" in of(0.4, -0.15, -0.05)
    assert "may be chance" in of(0.51, -0.05, 0.07) and "−5.0 to +7.0" in of(0.51, -0.05, 0.07)
    assert "may be chance" in of(0.6, np.nan, np.nan, 1)


def test_slices_and_gain_as_commands(local_run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pddm_lab import cli

    root = str(local_run.path.parent)
    cli.main(["runs", "slices", local_run.name, "--by", "class", "--json", "--runs-root", root])
    rows = json.loads(capsys.readouterr().out)
    whole = next(row for row in rows if row["name"] == "all queries" and row["similarity"] == "D")
    assert whole["recall"] == pytest.approx(local_run.info["metrics"]["unseen"]["euclidean"]["recall@1"], abs=1e-6)
    with pytest.raises(SystemExit):
        cli.main(["runs", "gain", local_run.name, local_run.name, "--runs-root", root])
    assert "was trained without corrections" in capsys.readouterr().err
    shutil.copytree(local_run.path, tmp_path / "later")
    dataset = local_run.info["dataset"] | {"corrections": {"sha256": "0", "items": 1}}
    (tmp_path / "later" / "run.json").write_text(json.dumps(local_run.info | {"dataset": dataset}))
    cli.main(["runs", "gain", local_run.name, str(tmp_path / "later"), "--runs-root", root])
    assert (
        "On classes it has never met, the difference with the corrections may be chance: +0.0"
        in capsys.readouterr().out
    )
    with pytest.raises(SystemExit):
        cli.main(["runs", "slices", local_run.name, "--by", "styel", "--runs-root", root])
    assert "Unknown column 'styel'" in capsys.readouterr().err


def test_a_run_with_corrections_is_compared_with_the_one_without(local_run) -> None:
    def run(name: str, hours: int, corrections: str = "", status: str = "finished", **choices):
        dataset = {"corrections": {"sha256": corrections}} if corrections else {}
        config = replace(local_run.config, corrections=bool(corrections), run_name=name, **choices)
        created = local_run.created + timedelta(hours=hours)
        return SimpleNamespace(name=name, config=config, created=created, status=status, info={"dataset": dataset})

    first, again, other = run("first", 0), run("again", 1), run("other", 2, seed=5)
    one, two = run("one", 3, "a"), run("two", 4, "b")
    runs = [two, one, other, again, first, run("later", 9), run("broken", 2, status="failed")]
    assert [before_corrections(later, runs).name for later in (one, two)] == ["again", "again"]  # type: ignore
    assert before_corrections(two, [two, one, other]) is one  # type: ignore[arg-type, comparison-overlap]
    assert before_corrections(first, runs) is None and before_corrections(one, [other]) is None  # type: ignore
