"""A gallery kept in step with a range of products, from the command line: add, update, remove, redraw the map."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pddm_lab import cli
from pddm_lab.data.images import open_image
from pddm_lab.errors import RunError
from pddm_lab.files import fingerprint
from pddm_lab.gallery import changes, umap_layout
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.runs.new_items import Picture
from pddm_lab.runs.process import this_process
from pddm_lab.runs.run import Run
from pddm_lab.training import rebuild
from pddm_lab.training.finish import item_table

PRECISION = 0.02
"""Largest difference of a feature that was computed in another batch: a trunk in 16 bits rounds otherwise there."""


@pytest.fixture
def run(digits_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy of the run on digits, to be changed."""
    monkeypatch.setenv("PDDM_LAB_RUNS", str(tmp_path / "runs"))
    shutil.copytree(digits_run.path, tmp_path / "runs" / "digits")
    return Run.open(tmp_path / "runs" / "digits")


@pytest.fixture
def folder(run: Run, tmp_path: Path) -> Path:
    """Pictures of a class that the gallery has, and of one that it has not; the first are those of its own items."""
    gallery, root = run.gallery("unseen"), Path(run.info["dataset"]["root"])
    folder = tmp_path / "pictures"
    for row in (0, 1):
        name = gallery.items["class_name"].iloc[row]
        (folder / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(root / gallery.items["id"].iloc[row], folder / name / f"again {row}.png")
    (folder / "neu é").mkdir()
    Image.new("RGBA", (40, 70), (255, 0, 0, 90)).save(folder / "neu é" / "red.webp")
    (folder / "neu é" / "broken.png").write_bytes(b"no picture")
    (folder / "neu é" / ".hidden.png").write_bytes(b"")
    (folder / "neu é" / "notes.txt").write_text("none")
    return folder


def gallery(*argv: object) -> None:
    """A command of `gallery`, for the unseen gallery unless it names another."""
    of = [] if argv[0] == "rebuild" or "--protocol" in argv else ["--protocol", "unseen"]
    cli.main(["gallery", *map(str, argv), *of])


def fails(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """What a command that fails says, on one line."""
    with pytest.raises(SystemExit) as exit:
        gallery(*argv)
    assert exit.value.code == 2
    output = capsys.readouterr().err.strip().splitlines()[-1]
    assert output.startswith("pddm-lab: ")
    return output


def test_pictures_of_a_folder_become_items(run: Run, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = run.gallery("unseen")
    gallery("add", "digits", folder)
    output = capsys.readouterr().out
    classes = before.items["class_name"].iloc[:2].nunique() + 1
    assert f"Added 3 items of {classes} classes, 1 of them new. " in output
    assert f"The unseen gallery has {len(before) + 3:,} items." in output
    assert "Skipped 1 picture:" in output
    assert "broken.png is not a picture the lab can read" in output
    assert "Redraw it with `pddm-lab gallery map digits --protocol unseen`." in output
    after = Gallery.open(before.path, verify=True)
    assert after.map is not None and after.map["id"].tolist() == after.items["id"].tolist()
    assert f"On its map {after.manifest['map']['placed']} items lie between their neighbours." in output
    name = before.items["class_name"].iloc[0]
    row, new = after.index_of(f"{name}/again 0.png"), after.index_of("neu é/red.webp")
    assert after.items["label"].iloc[row] == before.items["label"].iloc[0]
    every = [run.gallery(protocol).items["label"].max() for protocol in run.protocols() if protocol != "unseen"]
    assert after.items["label"].iloc[new] == max(before.items["label"].max(), *every) + 1
    assert (after.items["role"] == "both").all()
    np.testing.assert_allclose(after.features[row], before.features[0], atol=1e-5)
    actual, distances = after.search(before.features[:1], 2)
    assert {0, row} == set(actual[0])
    assert distances.max() < 1e-2
    assert after.thumb(new).startswith(b"\xff\xd8")


def rows_of(report: Path) -> dict[str, tuple[str, str]]:
    """File -> what was done and why, of a table of `--report`."""
    table = pd.read_csv(report, keep_default_na=False)
    assert list(table) == ["file", "item", "done", "why"] and table["file"].is_unique
    return {row["file"]: (row["done"], row["why"]) for row in table.to_dict("records")}


def test_each_file_is_reported(run: Run, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = run.gallery("unseen")
    known, name = before.items["id"].iloc[5], before.items["class_name"].iloc[0]
    (folder / known).parent.mkdir(exist_ok=True)
    Image.new("RGB", (30, 30), "blue").save(folder / known)  # another picture under the id of an item
    shutil.copy(folder / "neu é" / "red.webp", folder / "neu é" / "twin.webp")
    again = Image.open(folder / "neu é" / "red.webp")
    again.save(folder / "neu é" / "pixels.png")  # other bytes, the same pixels
    Image.new("RGB", (30, 30), "green").save(folder / "loose.png")
    report, copy = tmp_path / "report.csv", f"{name}/again 0.png"
    gallery("add", "digits", folder, "--report", report)
    output = capsys.readouterr().out
    assert "Added 5 items" in output and "Left out 1 picture whose ids the gallery has" in output
    assert "added pictures are there already, such as " in output
    assert f"What was done with each of 8 files is in {report}." in output
    reported = rows_of(report)
    assert reported["loose.png"] == ("skipped", "it is in no class folder")
    assert reported[known] == ("skipped", "an item has this id: pddm-lab gallery update replaces its picture")
    assert reported["neu é/broken.png"][0] == "skipped" and "is not a picture the lab can read" in reported[
        "neu é/broken.png"][1]  # fmt: skip
    done, why = reported[copy]
    twin = before.index_of(why.removeprefix("the same picture as "))
    assert done == "added" and before.thumb(twin) == before.thumb(0)
    first, *others = sorted(file for file in reported if file.startswith("neu é/") and "broken" not in file)
    assert reported[first] == ("added", "")
    assert {reported[file] for file in others} == {("added", f"the same picture as {first}")}
    after = run.gallery("unseen")
    assert after.thumb(after.index_of(known)) == before.thumb(5), "the item keeps its picture"
    gallery("undo", "digits")
    gallery("add", "digits", folder, "--report", report, "--skip-duplicates")
    assert "Added 1 item of 1 class, 1 of them new." in capsys.readouterr().out
    assert rows_of(report)[copy] == ("skipped", why)
    assert "already in the unseen gallery: update it" not in capsys.readouterr().err
    gallery("update", "digits", folder, "--report", report)
    assert "Updated 2 items." in capsys.readouterr().out, "the one that was added, and the known one"
    reported = rows_of(report)
    assert reported[known] == ("replaced", "")
    assert reported["loose.png"] == ("skipped", "no item has this id: pddm-lab gallery add adds it")
    for flag, least in (("--count", 1), ("--seed", 0)):
        assert f"{flag} expects {least} or more" in fails(capsys, "queries", "digits", flag, least - 1)


def test_the_report_is_written_also_if_the_effect_of_the_change_cannot_be_measured(
    run: Run, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = run.gallery("unseen")
    (before.path / "queries.parquet").write_bytes(b"damaged")
    gallery("add", "digits", folder, "--report", tmp_path / "report.csv")
    output = capsys.readouterr().out
    assert "Added 3 items" in output and "What it did to the saved queries is not known: " in output
    assert len(rows_of(tmp_path / "report.csv")) == 4 and len(run.gallery("unseen")) == len(before) + 3


def test_a_report_that_cannot_be_written_changes_nothing(
    run: Run, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = run.gallery("unseen").manifest
    for command in ("add", "update"):
        for report in (tmp_path / "nowhere" / "report.csv", tmp_path):
            assert "can't be written" in fails(capsys, command, "digits", folder, "--report", report)
    assert run.gallery("unseen").manifest == before
    assert not list(tmp_path.glob(".*.tmp"))


def test_what_the_gallery_has_already_is_no_error(
    run: Run, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So a folder can be added every night; the picture that can't be read is named each time."""
    report = tmp_path / "report.csv"
    Image.new("RGB", (30, 30), "green").save(folder / "loose.png")
    gallery("add", "digits", folder)
    before = run.gallery("unseen").manifest
    capsys.readouterr()
    gallery("add", "digits", folder, "--report", report)
    output = capsys.readouterr().out
    assert "Nothing was added: 3 pictures have ids of the unseen gallery already, such as " in output
    assert "(`pddm-lab gallery update` replaces their pictures); the other 1 picture can't be read." in output
    assert "broken.png is not a picture the lab can read" in output
    assert "Skipped 1 picture outside of class folders." in output
    assert f"What was done with each of 5 files is in {report}." in output
    reported = rows_of(report)
    assert {done for done, _ in reported.values()} == {"skipped"}
    assert "is not a picture" in reported["neu é/broken.png"][1] and "has this id" in reported["neu é/red.webp"][1]
    (folder / "neu é" / "broken.png").unlink()
    gallery("add", "digits", folder)
    assert "already, such as " in (output := capsys.readouterr().out) and "can't be read" not in output
    shutil.move(folder / "neu é", folder / "other")
    shutil.rmtree(folder / str(run.gallery("unseen").items["class_name"].iloc[0]))
    (folder / "other" / "broken.png").write_bytes(b"no picture")
    gallery("add", "digits", folder, "--skip-duplicates", "--report", report)
    output = capsys.readouterr().out
    same = "the same picture as neu é/red.webp, which is of the class neu é"
    assert "Nothing was added: " in output and f"in another class, such as other/red.webp, {same}." in output
    assert "broken.png is not a picture the lab can read" in output
    assert rows_of(report)["other/red.webp"] == ("skipped", same)
    assert run.gallery("unseen").manifest == before


def test_a_new_class_with_the_name_of_another_is_named(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As its pictures are which the gallery has in the other class."""
    changes.rename_class(run.gallery("unseen"), run.gallery("unseen").items["class_name"].iloc[0], "Oat Milk")
    before, folder, report = run.gallery("unseen"), tmp_path / "pictures" / "oat-milk", tmp_path / "report.csv"
    folder.mkdir(parents=True)
    item = before.items["id"].iloc[0]
    shutil.copy(Path(run.info["dataset"]["root"]) / item, folder / "a.png")
    Image.new("RGB", (30, 30), "red").save(folder / "b.png")
    gallery("add", "digits", tmp_path / "pictures", "--report", report, "--no-map")
    output = capsys.readouterr().out
    assert "1 added picture is there already, in another class, such as oat-milk/a.png, " in output
    rename = ["rename", "digits", "oat-milk", "Oat Milk"]
    command = "`pddm-lab gallery rename digits oat-milk 'Oat Milk' --protocol unseen`"
    assert f"The class oat-milk is new, and there is also Oat Milk: {command} merges them." in output
    reported, also = rows_of(report), "the class oat-milk is new, and there is also Oat Milk"
    done, why = reported["oat-milk/a.png"]
    assert done == "added" and why.startswith("the same picture as ")
    assert why.endswith(f", which is of the class Oat Milk; {also}")
    assert reported["oat-milk/b.png"] == ("added", also)
    gallery(*rename)
    assert "oat-milk" not in set(run.gallery("unseen").items["class_name"])


def test_a_map_is_drawn_after_each_change_unless_it_is_not_wanted(
    run: Run, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Path] = []

    def start(path: Path) -> bool:
        started.append(path)
        return True

    monkeypatch.setattr("pddm_lab.gallery.redraw.start_redrawing", start)
    gallery("add", "digits", folder, "--no-map")
    assert not started and "Redraw it with" in capsys.readouterr().out
    gallery("undo", "digits")
    gallery("remove", "digits", run.gallery("unseen").items["id"].iloc[0])
    gallery("rename", "digits", run.gallery("unseen").items["class_name"].iloc[0], "another name")
    assert started == [run.gallery("unseen").path] * 2, "a new name moves nothing"
    output = capsys.readouterr().out
    assert output.count("A new map is being drawn in the background.") == 2 and "Redraw it" not in output, (
        "no new item is left on the map"
    )


def test_what_is_passed_over_in_a_folder_is_named(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "pictures" / "fruit" / "apple"
    folder.mkdir(parents=True)
    for path in (folder / "0.png", folder.parents[1] / "loose.png"):
        Image.new("RGB", (40, 40), "red").save(path)
    shutil.copy(os.fsencode(folder / "0.png"), os.path.join(os.fsencode(folder), b"caf\xe9.png"))
    (folder / "1.svg").write_text("<svg/>")
    (folder / "up").symlink_to(tmp_path / "pictures")
    gallery("add", "digits", tmp_path / "pictures")
    output = capsys.readouterr().out
    assert "Added 1 item of 1 class, 1 of them new." in output
    assert "1 link in a circle or to nowhere, such as fruit/apple/up." in output
    assert "1 file named in another encoding than UTF-8, such as fruit/apple/caf\\xe9.png: rename" in output
    assert "1 picture in a format that isn't read: .SVG 1." in output
    assert "1 picture outside of class folders." in output
    after = run.gallery("unseen")
    assert after.items["class_name"].iloc[after.index_of("fruit/apple/0.png")] == "fruit/apple"


def test_without_a_name_the_whole_range_changes(run: Run, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {name: len(run.gallery(name)) for name in run.galleries()}
    assert list(before) == ["catalogue", "unseen", "known"]
    assert before["catalogue"] == run.info["dataset"]["items"]
    cli.main(["gallery", "add", "digits", str(folder)])
    output = capsys.readouterr().out
    assert "The catalogue gallery has 1,800 items." in output and "metrics" not in output
    assert {name: len(run.gallery(name)) for name in run.galleries()} == before | {"catalogue": 1800}
    whole = run.gallery("catalogue")
    for name in run.protocols():
        part = run.gallery(name)
        rows = [whole.index_of(item) for item in part.items["id"]]
        np.testing.assert_array_equal(whole.features[rows], part.features)
        assert whole.items["class_name"].iloc[rows].tolist() == part.items["class_name"].tolist()
    assert whole.search(whole.features[-1:], 1)[0][0, 0] == len(whole) - 1, "what was added is found"


def test_classes_are_listed_renamed_removed_and_all_of_it_undone(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    before = run.gallery("unseen").items
    name, other = before["class_name"].unique()[:2]
    count = int((before["class_name"] == name).sum())
    gallery("rename", "digits", name, "a new name", "--reason", "a test")
    assert f"{count} items of {name} now have the class a new name." in capsys.readouterr().out
    gallery("rename", "digits", "a new name", other)
    gallery("remove", "digits", "--of-class", other)
    assert f"Removed {count + int((before['class_name'] == other).sum())} items." in capsys.readouterr().out
    gallery("list", "digits")
    listed = capsys.readouterr().out
    assert "(a test)" in listed and f"merged {count} items of 'a new name' into '{other}'" in listed
    assert other not in [line.split("  ")[0] for line in listed.splitlines()]
    for _ in range(3):
        gallery("undo", "digits")
    assert f"Undone: renamed {count} items of '{name}' into 'a new name' (a test)." in capsys.readouterr().out
    pd.testing.assert_frame_equal(run.gallery("unseen").items, before)
    gallery("list", "digits", "--of-class", name)
    assert before["id"].iloc[0] in capsys.readouterr().out
    assert "no class 'x'" in fails(capsys, "list", "digits", "--of-class", "x")
    assert "no class 'x'" in fails(capsys, "remove", "digits", "--of-class", "x")
    assert "no change of the unseen gallery to undo" in fails(capsys, "undo", "digits")
    gallery("queries", "digits", "--count", "50")
    assert "Kept 50 queries of the unseen gallery: R@1 " in capsys.readouterr().out
    gallery("rename", "digits", name, "a new name")
    assert "R@1 of the 50 saved queries: " in capsys.readouterr().out


def test_an_exported_selection_is_removed(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, table = run.gallery("unseen").items, tmp_path / "selection.csv"
    before.iloc[[2, 5, 9]].to_csv(table, index=False)
    gallery("remove", "digits", before["id"].iloc[0], "--items", table)
    assert "Removed 4 items." in capsys.readouterr().out
    expected = before.drop(index=[0, 2, 5, 9]).reset_index(drop=True)
    assert run.gallery("unseen").items["id"].tolist() == expected["id"].tolist()
    gallery("undo", "digits")
    assert "selection.txt does not exist" in fails(capsys, "remove", "digits", "--items", tmp_path / "selection.txt")
    before[["label"]].rename(columns={"label": "path"}).to_csv(table, index=False)
    assert "has no column id" in fails(capsys, "remove", "digits", "--items", table)
    assert "a table with --items" in fails(capsys, "remove", "digits")


def test_items_get_new_pictures(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = run.gallery("unseen")
    item = before.items["id"].iloc[3]
    file = tmp_path / "new" / item
    file.parent.mkdir(parents=True)
    shutil.copy(Path(run.info["dataset"]["root"]) / before.items["id"].iloc[9], file)
    gallery("update", "digits", tmp_path / "new")
    assert f"Updated 1 item. The unseen gallery has {len(before):,} items." in capsys.readouterr().out
    after = Gallery.open(before.path, verify=True)
    row = after.index_of(item)
    np.testing.assert_allclose(after.features[row], before.features[9], atol=1e-5)
    assert after.items.loc[row, ["label", "class_name", "role"]].equals(
        before.items.loc[3, ["label", "class_name", "role"]].rename(row)
    )
    assert open_image(file).size
    assert after.thumb(row) == before.thumb(9)


def test_items_are_removed_and_the_map_is_redrawn(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(umap_layout, "_umap", lambda of, *_: of[:, :2])
    before = run.gallery("known")
    ids = before.items["id"].iloc[[0, 5]].tolist()
    gallery("remove", "digits", *ids, "--protocol", "known")
    assert f"Removed 2 items. The known gallery has {len(before) - 2:,} items." in capsys.readouterr().out
    gallery("map", "digits", "--protocol", "known")
    assert f"Drew the map of {len(before) - 2:,} items of known (UMAP)." in capsys.readouterr().out
    after = Gallery.open(before.path, verify=True)
    assert after.map is not None
    assert after.map["id"].tolist() == after.items["id"].tolist()
    assert not set(ids) & set(after.items["id"])


def test_errors_are_one_sentence_and_change_nothing(
    run: Run, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = run.gallery("unseen")
    (tmp_path / "empty").mkdir()
    loose = tmp_path / "loose"
    loose.mkdir()
    (loose / "a.png").write_bytes(b"no picture")
    assert "does not exist" in fails(capsys, "add", "digits", tmp_path / "nowhere")
    assert "has no pictures" in fails(capsys, "add", "digits", tmp_path / "empty")
    assert "has no pictures in class folders" in fails(capsys, "add", "digits", loose)
    assert "'a.png' is not in the unseen gallery" in fails(capsys, "update", "digits", loose)
    (loose / "class").mkdir()
    (loose / "class" / "b.png").write_bytes(b"no picture")
    report = tmp_path / "report.csv"
    assert "None of 1 pictures can be read" in fails(capsys, "add", "digits", loose, "--report", report)
    assert {done for done, _ in rows_of(report).values()} == {"skipped"}
    assert "'nobody' is not in the unseen gallery" in fails(
        capsys, "remove", "digits", before.items["id"].iloc[0], "nobody"
    )
    assert "Name the items" in fails(capsys, "remove", "digits")
    assert "no other gallery" in fails(capsys, "add", "digits", folder, "--protocol", "other")
    assert "nothing" in fails(capsys, "remove", "nothing", "x")
    run.update(status="running", **this_process())
    assert "still running" in fails(capsys, "remove", "digits", before.items["id"].iloc[0])
    assert Gallery.open(before.path, verify=True).manifest == before.manifest


def added(run: Run, folder: Path) -> Gallery:
    """The gallery of 40 unseen items with three pictures added, and one item updated by one of them."""
    changes.remove(run.gallery("unseen"), run.gallery("unseen").items["id"].iloc[40:].tolist())
    gallery("add", "digits", folder)
    before = run.gallery("unseen")
    new = folder.parent / "new" / before.items["id"].iloc[3]
    new.parent.mkdir(parents=True)
    shutil.copy(folder / "neu é" / "red.webp", new.with_suffix(".png"))
    gallery("update", "digits", folder.parent / "new")
    return run.gallery("unseen")


def test_a_damaged_gallery_is_written_again(
    run: Run, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(umap_layout, "_umap", lambda of, *_: of[:, :2])
    before = added(run, folder)
    features, thumbs = np.array(before.features), [before.thumb(row) for row in range(len(before))]
    names, known = list(before.distributions), run.gallery("known").manifest
    (before.path / "features.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(RunError, match=r"features\.npy is damaged.*`pddm-lab gallery rebuild digits`"):
        run.gallery("unseen")
    (folder / "neu é" / "red.webp").unlink()
    capsys.readouterr()
    gallery("rebuild", "digits", "--protocol", "unseen")
    output = capsys.readouterr().out
    assert f"Wrote the unseen gallery again: {len(before) - 1:,} items, map by UMAP." in output
    assert output.count("Not kept: ") == 1 and "Not kept: neu é/red.webp: " in output
    after = Gallery.open(before.path, verify=True)
    stay = np.flatnonzero(before.items["id"] != "neu é/red.webp")
    assert after.items.equals(before.items.iloc[stay].reset_index(drop=True))
    np.testing.assert_allclose(after.features, features[stay], atol=PRECISION)
    assert [after.thumb(row) for row in range(len(after))] == [thumbs[row] for row in stay]
    assert after.map is not None and after.map["id"].tolist() == after.items["id"].tolist()
    assert list(after.distributions) == names
    assert after.manifest["changed"]["removed"] == before.manifest["changed"]["removed"] + 1
    assert run.gallery("known").manifest == known


def test_what_is_undamaged_is_kept_and_the_rest_comes_from_the_data_set(
    run: Run, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(umap_layout, "_umap", lambda of, *_: of[:, :2])
    first = run.gallery("unseen")
    pairs = {name: measured.pairs_scored for name, measured in first.distributions.items()}
    before = added(run, folder)
    features = np.array(before.features)
    shutil.rmtree(folder)
    (before.path / "distributions.parquet").write_bytes(b"")
    gallery("rebuild", "digits", "--protocol", "unseen")
    assert "Not kept" not in capsys.readouterr().out
    after = Gallery.open(before.path, verify=True)
    assert after.items.equals(before.items)
    np.testing.assert_allclose(after.features, features, atol=PRECISION)
    assert list(after.distributions) == list(pairs)
    assert after.distributions["pddm"].pairs_scored < pairs["pddm"], "of the items there are"
    monkeypatch.setattr(rebuild, "item_table", lambda *of: item_table(*of).iloc[:20])  # of 901
    (after.path / "manifest.json").unlink()
    with pytest.raises(RunError, match="`pddm-lab gallery rebuild digits`"):
        run.gallery("unseen")
    gallery("rebuild", "digits", "--protocol", "unseen")
    assert "only the items of the data set were embedded again" in capsys.readouterr().out
    again = Gallery.open(before.path, verify=True)
    assert again.items.equals(first.items.iloc[:20])
    np.testing.assert_allclose(again.features, first.features[:20], atol=PRECISION)
    assert list(again.distributions) == list(pairs)


def test_a_run_of_an_earlier_version_gets_its_catalogue(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    whole = run.gallery("catalogue")
    features = np.array(whole.features)
    shutil.rmtree(whole.path)
    assert run.galleries() == ["unseen", "known"]
    gallery("rebuild", "digits", "--protocol", "catalogue")
    assert "Not kept" not in capsys.readouterr().out
    again = run.gallery("catalogue")
    assert again.items.equals(whole.items) and not again.distributions
    np.testing.assert_allclose(again.features, features, atol=PRECISION)


def test_a_gallery_with_nan_and_without_a_similarity_is_whole_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = run.gallery("unseen")
    made = [Picture(np.array(before.features[row]), before.thumb(row)) for row in range(len(before))]
    measured = before.distributions
    features = np.load(before.path / "features.npy")
    features[3] = np.nan
    np.save(before.path / "features.npy", features)
    frame = pd.read_parquet(before.path / "distributions.parquet").query("similarity != 'cosine'")
    frame.to_parquet(before.path / "distributions.parquet", index=False)
    manifest = before.manifest
    manifest["pairs"].pop("cosine")
    manifest["files"] |= {name: fingerprint(before.path / name) for name in ("features.npy", "distributions.parquet")}
    (before.path / "manifest.json").write_text(json.dumps(manifest))  # as if the lab had written this
    with pytest.raises(RunError, match=r"features\.npy is damaged: expected finite values.*gallery rebuild digits"):
        run.gallery("unseen")
    monkeypatch.setattr(rebuild, "embed_pictures", lambda run, files: made)
    monkeypatch.setattr(umap_layout, "_umap", lambda of, *_: of[:, :2])
    gallery("rebuild", "digits", "--protocol", "unseen")
    after = Gallery.open(before.path, verify=True).distributions
    assert set(after) == set(measured)
    for name, one in measured.items():
        np.testing.assert_array_equal(after[name].positive, one.positive)
        np.testing.assert_array_equal(after[name].negative, one.negative)


def test_a_gallery_that_cannot_be_rebuilt(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert "has no other gallery: expected unseen or known" in fails(capsys, "rebuild", "digits", "--protocol", "other")
    shutil.rmtree(run.path / "gallery")
    run.update(status="stopped")
    assert "has no gallery yet. Resume it with `pddm-lab resume digits`" in fails(capsys, "rebuild", "digits")
    run.update(status="finished")
    (run.path / "model.safetensors").unlink()
    assert "model.safetensors is missing" in fails(capsys, "rebuild", "digits")
