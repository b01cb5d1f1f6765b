"""Corrections: kept beside the runs, applied where a training asks for them, and never to the user's own files."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from digit_pictures import write_digits

from pddm_lab import cli
from pddm_lab.config import TrainConfig
from pddm_lab.data import corrections
from pddm_lab.data.corrected import corrected, with_corrections
from pddm_lab.data.corrections import corrections_file, read_corrections
from pddm_lab.data.dataset import Dataset, Protocol
from pddm_lab.errors import DataError
from pddm_lab.training.loop import dataset_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return corrections_file(tmp_path / "runs", "emoji")


def small() -> Dataset:
    """Classes a and b train, c and d are unseen; the last item of a and of b is a query."""
    ids = [f"{name}/{number}" for name in "abcd" for number in range(4)]
    labels = np.repeat(np.arange(4), 4)
    query, train = np.array([3, 7]), np.array([0, 1, 2, 4, 5, 6])
    unseen = np.arange(8, 16)
    return Dataset(
        "small", Path("."), ids, labels, list("abcd"), train, Protocol("unseen", unseen, unseen),
        Protocol("known", query, train), [], "", "", sizes=np.ones(16, dtype=np.int64), metadata={"at": ids},
    )  # fmt: skip


def named(dataset: Dataset, items: np.ndarray) -> set[str]:
    return {dataset.ids[item] for item in items}


def test_the_last_decision_of_an_item_counts_and_undo_brings_the_one_before_back(file: Path) -> None:
    corrections.relabel(file, ["a/1", "a/2"], "dog", "looks like one")
    corrections.exclude(file, ["a/2"])
    after = read_corrections(file)
    assert [line.action for line in after.by_item.values()] == ["relabel", "exclude"]
    assert after.lines[0].reason == "looks like one" and after.summary == "1 relabelled, 1 excluded"
    before, gone = corrections.undo(file)
    assert gone == ["a/2"] and before.by_item["a/2"].new_class == "dog"
    before, gone = corrections.undo(file)
    assert gone == ["a/1", "a/2"] and not before.lines
    with pytest.raises(DataError, match="no correction to undo"):
        corrections.undo(file)
    corrections.exclude(file, ["x", "y"])
    assert [line.id for line in corrections.undo(file, ["x"])[0].lines] == ["y"]
    with pytest.raises(DataError, match="corrects no item 'x'"):
        corrections.undo(file, ["x"])


def test_what_is_read_is_what_was_written(file: Path) -> None:
    ids = ['a "b", c/1.png', "=SUM(A1)", "ünï/ß.png"]
    written = corrections.relabel(file, ids, 'a "class", too', "one,\nof two lines")
    assert read_corrections(file) == written
    assert list(written.by_item) == ids and not list(file.parent.glob("*.tmp"))


HEAD = "id,action,new_class,time,reason\n"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("id,class\n", "line 1: expected id,action"), ("", "line 1"), ("\0", "line 1"),
        (f"{HEAD}a,rename,b,2026-01-01T00:00:00+00:00,\n", "line 2: action"),
        (f"{HEAD}a,exclude,,today,\n", "line 2: time"), (f"{HEAD},exclude,,2026-01-01T00:00:00Z,\n", "line 2: id"),
        (f"{HEAD}a,relabel,,2026-01-01T00:00:00+00:00,\n", "line 2: the line"),
        (f"{HEAD}a,exclude\n", "line 2: expected 5 columns, got 2"), (f'{HEAD}"a', "line 2"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_with_what_to_do_and_stays(file: Path, text: str, place: str) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(text)
    for use in (read_corrections, lambda one: corrections.exclude(one, ["b"]), corrections.undo):
        with pytest.raises(DataError, match=place) as error:
            use(file)
        assert str(file) in str(error.value) and "move the file away" in str(error.value)
    assert file.read_text() == text
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        read_corrections(file)


def test_people_who_correct_at_once_lose_nothing(file: Path) -> None:
    people = [Thread(target=lambda who=who: [corrections.exclude(file, [f"{who}/{n}"]) for n in range(5)])
              for who in range(4)]  # fmt: skip
    for person in people:
        person.start()
    for person in people:
        person.join()
    assert len(read_corrections(file).by_item) == 20


def test_relabelled_items_stay_on_their_side_of_the_split(file: Path) -> None:
    of, before = small(), small()
    corrections.relabel(file, ["a/1", "a/3"], "b")
    corrections.relabel(file, ["c/0"], "d")
    after = corrected(of, read_corrections(file))
    assert after.ids == before.ids and after.known and after.unseen and before.known and before.unseen
    assert [after.class_names[label] for label in after.labels] == [
        *("a", "b", "a", "b"), *"bbbb", *("d", "c", "c", "c"), *"dddd",
    ]  # fmt: skip
    for mine, theirs in (
        (after.train, before.train), (after.known.query, before.known.query), (after.unseen.query, before.unseen.query),
        (after.known.gallery, before.known.gallery), (after.unseen.gallery, before.unseen.gallery),
    ):  # fmt: skip
        np.testing.assert_array_equal(mine, theirs)
    assert after.fingerprint() != before.fingerprint() and "Corrected: 3 relabelled" in after.notes[-1]


def test_items_that_change_sides_and_items_that_go(file: Path) -> None:
    corrections.relabel(file, ["a/0", "b/3"], "c")
    corrections.relabel(file, ["d/0"], "a")
    corrections.exclude(file, ["b/0", "c/3", "gone/1"])
    after = corrected(small(), read_corrections(file))
    assert after.known and after.unseen
    assert named(after, after.train) == {"a/1", "a/2", "b/1", "b/2", "d/0"}
    assert named(after, after.known.query) == {"a/3"}
    assert named(after, after.known.gallery) == {"a/1", "a/2", "b/1", "b/2", "d/0"}
    assert named(after, after.unseen.query) == {"a/0", "b/3", "c/0", "c/1", "c/2", "d/1", "d/2", "d/3"}
    assert after.unseen.leave_one_out and len(after) == len(after.sizes) == len(after.metadata["at"]) == 14
    assert after.metadata["at"] == after.ids and "1 corrected items aren't in the data" in after.notes[-1]
    assert "gone/1" in after.notes[-1]


def test_a_class_whose_items_all_go_is_gone(file: Path) -> None:
    corrections.exclude(file, [f"c/{number}" for number in range(4)])
    after = corrected(small(), read_corrections(file))
    assert after.class_names == ["a", "b", "d"] and after.labels.max() == 2
    corrections.exclude(file, [f"a/{number}" for number in range(4)])
    with pytest.raises(DataError, match="fewer than two classes to train on"):
        corrected(small(), read_corrections(file))


def test_an_unknown_class_and_no_corrections_are_one_sentence(file: Path) -> None:
    with pytest.raises(DataError, match="train without --corrections"):
        with_corrections(small(), file)
    corrections.relabel(file, ["a/1"], "e")
    with pytest.raises(DataError, match="correction of a/1 can't be applied: Unknown class 'e'"):
        with_corrections(small(), file)


def test_times_and_reasons_are_no_part_of_the_fingerprint(tmp_path: Path) -> None:
    digests = []
    for reason in ("", "another"):
        one = tmp_path / f"{reason}.csv"
        corrections.exclude(one, ["a/1"], reason)
        digests.append(corrected(small(), read_corrections(one)).fingerprint())
    assert digests[0] == digests[1]
    corrections.relabel(one, ["a/1"], "b")
    assert corrected(small(), read_corrections(one)).fingerprint() not in digests


def test_each_data_set_has_its_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    of = [corrections.name_of(name) for name in ("emoji", "imagenet:zero-shot", "folder:a/photos", "folder:b/photos")]
    assert of[:2] == ["emoji", "imagenet-zero-shot"] and len({*of}) == 4
    assert corrections.name_of(f"folder:{tmp_path}/a/photos") == of[2]
    assert all(os.sep not in name for name in of)


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Runs `data corrections` on a folder of digits; returns what it prints, and whether it fails."""
    pictures = write_digits(tmp_path / "digits", 3)

    def run(name: str, *words: str) -> tuple[str, bool]:
        failed = False
        try:
            cli.main(["data", "corrections", name, f"folder:{pictures}", *words, "--runs-root", str(tmp_path / "runs")])
        except SystemExit as error:
            failed = bool(error.code)
        out, err = capsys.readouterr()
        return out + err, failed

    return run


@pytest.mark.parametrize("name", ["list", "undo"])
def test_an_unknown_data_set_is_named(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["data", "corrections", name, "emojy", "--runs-root", str(tmp_path)])
    assert "Unknown data set 'emojy'. Expected one of emoji, " in capsys.readouterr().err


def test_the_commands(command, tmp_path: Path) -> None:
    items = sorted(path.relative_to(tmp_path / "digits").as_posix() for path in (tmp_path / "digits").rglob("*.png"))
    assert "no corrections" in command("list")[0]
    text, failed = command("relabel", "7", items[0], items[1], "--reason", "a seven")
    assert not failed and "2 relabelled, 0 excluded" in text and "--corrections" in text
    assert "a seven" in command("list")[0] and items[1] in command("list")[0]
    assert "Unknown class '77'. Did you mean '7'" in command("relabel", "77", items[0])[0]
    text, failed = command("exclude", "7/none.png")
    assert failed and "Unknown item '7/none.png'" in text and items[0] in text
    assert "1 relabelled, 1 excluded" in command("exclude", items[1])[0]
    text, _ = command("undo")
    assert f"Undone for {items[1]}." in text and "2 relabelled" in text
    assert "0 relabelled" in command("undo", *items[:2])[0]
    assert command("undo")[1] and command("exclude")[1]


def test_a_run_keeps_the_corrections_that_it_was_trained_with(local_run, tmp_path: Path, monkeypatch) -> None:
    from pddm_lab.training import trainer

    root = tmp_path / "runs"
    config = replace(local_run.config, corrections=True, runs_root=str(root), run_name="again")
    pictures = config.dataset.partition(":")[2]
    before = {path: path.read_bytes() for path in Path(pictures).rglob("*.png")}
    file = corrections_file(root, config.dataset)
    items = sorted(path.relative_to(pictures).as_posix() for path in before)
    corrections.relabel(file, items[:1], "9")
    corrections.exclude(file, items[-2:-1])
    monkeypatch.setattr(trainer, "train_run", lambda run, dataset, progress: run)
    run = trainer.train(config, progress=False)
    assert run.info["dataset"]["items"] == len(items) - 1
    kept = json.loads((run.path / "run.json").read_text())["dataset"]["corrections"]
    assert kept == {"sha256": read_corrections(file).digest, "items": 2}
    assert run.info["dataset"]["fingerprint"] != local_run.info["dataset"]["fingerprint"]
    corrections.undo(file)
    own = dataset_of(run.config, root, run.name)
    assert own.fingerprint() == run.info["dataset"]["fingerprint"]  # whatever is corrected meanwhile
    assert dataset_of(TrainConfig(**config.to_dict() | {"run_name": ""}), root).fingerprint() != own.fingerprint()
    assert {path: path.read_bytes() for path in Path(pictures).rglob("*.png")} == before
