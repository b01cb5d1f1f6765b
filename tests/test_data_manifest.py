"""A table of images with a split of one's own, and the first line that is wrong with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pddm_lab.config import TrainConfig
from pddm_lab.data.dataset import Dataset, read_dataset
from pddm_lab.errors import DataError

HEADER = "path,label,split"


def make_table(root: Path, *lines: str, header: str = HEADER, encoding: str = "utf-8") -> Path:
    """A table with a small picture for each path in it."""
    root.mkdir(parents=True, exist_ok=True)
    for number, line in enumerate(lines):
        path = root / line.split(",")[0].strip('" ')
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8 + number % 3, 8), (number * 9 % 255, 99, 0)).save(path)
    (root / "split.csv").write_text("\n".join([header, *lines, ""]), encoding=encoding)
    return root / "split.csv"


def rows(label: str, split: str, count: int, rest: str = "") -> list[str]:
    return [f"{label}/{split}{number}.png,{label},{split}{rest}" for number in range(count)]


def read(file: Path, **choices) -> Dataset:
    return read_dataset(f"manifest:{file}", file.parent, **choices)


def ids(data: Dataset, items: np.ndarray) -> list[str]:
    return [data.ids[item] for item in items]


TRAINED = [*rows("apple", "train", 3), *rows("fig", "train", 3)]


def test_test_rows_of_training_classes_are_queries_and_other_classes_are_unseen(tmp_path: Path) -> None:
    lines = [*TRAINED, *rows("apple", "test", 1), *rows("kiwi", "test", 3), *rows("lime", "test", 2)]
    data = read(make_table(tmp_path / "shop", *lines))
    assert data.ids == [line.split(",")[0] for line in lines]
    assert data.class_names == ["apple", "fig", "kiwi", "lime"]
    assert data.known is not None and data.unseen is not None
    assert ids(data, data.train) == ids(data, data.known.gallery) == [line.split(",")[0] for line in TRAINED]
    assert ids(data, data.known.query) == ["apple/test0.png"]
    assert data.unseen.leave_one_out and len(data.unseen.query) == 5
    assert data.root == tmp_path / "shop" and data.notes == []


def test_without_test_rows_of_training_classes_queries_are_held_out(tmp_path: Path) -> None:
    file = make_table(tmp_path, *rows("apple", "train", 5), *rows("fig", "train", 5))
    data = read(file, known_query_share=0.2)
    assert data.unseen is None and data.known is not None
    assert len(data.known.query) == 2 and len(data.train) == 8
    assert not set(data.known.query) & set(data.train)
    assert ["holds out queries" in note or "none is unseen" in note for note in data.notes] == [True, True]
    assert read(file, known_query_share=0.0).known is None


def test_roles_choose_queries_and_gallery(tmp_path: Path) -> None:
    lines = [
        *(f"{line},gallery" for line in TRAINED), *rows("fig", "test", 1, ",query"),
        "fig/more.png,fig,test,gallery", *rows("kiwi", "test", 2, ",query"), "kiwi/a.png,kiwi,test,Gallery",
    ]  # fmt: skip
    data = read(make_table(tmp_path, *lines, header="path,label,split,role"))
    assert data.known is not None and data.unseen is not None
    assert ids(data, data.known.query) == ["fig/test0.png"]
    assert set(data.known.gallery) - set(data.train) == {data.ids.index("fig/more.png")}, "searched, not trained on"
    assert ids(data, data.unseen.query) == ["kiwi/test0.png", "kiwi/test1.png"]
    assert ids(data, data.unseen.gallery) == ["kiwi/a.png"]
    both = [*(f"{line}," for line in TRAINED), *rows("kiwi", "test", 2, ",both"), "kiwi/a.png,kiwi,test,"]
    data = read(make_table(tmp_path / "both", *both, header="path,label,split,role"))
    assert data.unseen is not None and data.unseen.leave_one_out and len(data.unseen.query) == 3


def test_further_columns_are_kept_for_the_readable_images(tmp_path: Path) -> None:
    lines = [f'{line},"{number}, left"' for number, line in enumerate(TRAINED)]
    file = make_table(tmp_path, *lines, header=f"{HEADER},shelf")
    (tmp_path / "apple" / "train1.png").write_bytes(b"no picture")
    data = read(file)
    assert [skipped.id for skipped in data.skipped] == ["apple/train1.png"]
    assert data.metadata == {"shelf": [f"{number}, left" for number in (0, 2, 3, 4, 5)]}


@pytest.mark.parametrize(
    ("separator", "encoding", "ending"),
    [(";", "utf-8-sig", "\n"), ("\t", "utf-8", "\r\n"), (",", "utf-8", "\r"), (";", "utf-8", "\r\n")],
)
def test_tables_as_programs_write_them(tmp_path: Path, separator: str, encoding: str, ending: str) -> None:
    file = make_table(tmp_path, *rows("café", "train", 2), *rows("fig", "train", 2))
    text = file.read_text().replace(",", separator).replace("path", " Path ").replace("train" + separator, "Train")
    file.write_bytes(text.replace("\n", ending).encode(encoding))
    assert read(file).class_names == ["café", "fig"]


def test_the_split_is_part_of_the_fingerprint_and_the_place_is_not(tmp_path: Path) -> None:
    lines = [*TRAINED, *rows("kiwi", "test", 2)]
    first = read(make_table(tmp_path / "a", *lines)).fingerprint()
    assert read(make_table(tmp_path / "b", *lines)).fingerprint() == first
    file = make_table(tmp_path / "c", *lines)
    file.write_text(file.read_text().replace("apple/train0.png,apple,train", "apple/train0.png,apple,test"))
    assert read(file).fingerprint() != first


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("apple/train0.png,apple,train", "line 8, column path: expected another image than line 2, got apple/train0"),
        ("apple//./train0.png,apple,train", "line 8, column path: expected another image than line 2"),
        ("gone.png,apple,train", "line 8, column path: expected an image, got gone.png, which is missing in "),
        (",apple,train", "line 8, column path: expected the path of an image, got nothing"),
        ("a.png, ,train", "line 8, column label: expected the name of a class, got nothing"),
        ("a.png,fig,val", "line 8, column split: expected train or test, got val"),
        ("../a.png,fig,train", "line 8, column path: expected a path inside of .*, got ../a.png"),
        ("fig/../../a.png,fig,train", "line 8, column path: expected a path inside of "),
        ("out/a.png,fig,train", "line 8, column path: expected a path inside of .*, got out/a.png"),
        ("link.png,fig,train", "line 8, column path: expected a path inside of "),
        ("circle.png,fig,train", "line 8, column path: expected an image, got circle.png, which is missing"),
        (f"{'x' * 9000}.png,fig,train", "line 8, column path: expected an image"),
        ("a\0.png,fig,train", "line 8"),
        ("a.png,fig", "line 8: expected 3 cells, one for each column of the header, got 2"),
        ("a.png,fig,train,more", "line 8: expected 3 cells, .* got 4. Put a text that holds a separator into quotes"),
        ('"a.png,fig,train', "line 8: expected a table in CSV, got unexpected end of data"),
    ],
)
def test_a_wrong_line_is_named_with_its_column(tmp_path: Path, line: str, message: str) -> None:
    file = make_table(tmp_path / "shop", *TRAINED)
    (tmp_path / "elsewhere").mkdir()
    for name in ("a.png", "elsewhere/a.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (file.parent / "out").symlink_to(tmp_path / "elsewhere")
    (file.parent / "link.png").symlink_to(tmp_path / "a.png")
    (file.parent / "circle.png").symlink_to(file.parent / "circle.png")
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(DataError, match=message) as caught:
        read(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["apple/0.png,apple,train,query"], r"line 2, column role: expected nothing or gallery \(an image to train on"),
        (["apple/0.png,apple,train,", "apple/1.png,apple,test,both"], "line 3, .*expected nothing or query or gallery"),
        (["kiwi/0.png,kiwi,test,query", "kiwi/1.png,kiwi,test,both"], "line 3, column role: expected query or gallery"),
        (["kiwi/0.png,kiwi,test,gallery", "kiwi/1.png,kiwi,test,"], "line 3, column role: .*, got nothing"),
        (["kiwi/0.png,kiwi,test,query"], "expected queries and a gallery of the unseen classes, got only role query"),
        (["kiwi/0.png,kiwi,test,all"], "line 2, column role: expected query, gallery, both or nothing, got all"),
    ],
)
def test_roles_that_cannot_be_are_named(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(make_table(tmp_path, *lines, header=f"{HEADER},role"))


def test_what_is_no_table_is_one_clear_error(tmp_path: Path) -> None:
    def message(data: bytes | None) -> str:
        file = tmp_path / "split.csv"
        if data is not None:
            file.write_bytes(data)
        with pytest.raises(DataError) as caught:
            read(file)
        return str(caught.value)

    assert "split.csv does not exist: expected FILE.csv with columns path, label, split" in message(None)
    assert "line 1: expected columns path, label, split, perhaps role, and others" in message(b"")
    assert "line 1: expected columns" in message(b"path,label\n")
    assert "each once" in message(b"path,label,split,Path\n")
    assert "separated by commas, semicolons or tabs, got 'path|label|split'" in message(
        b"path|label|split\na|b|train\n"
    )
    assert "has no lines below its header" in message(b"path,label,split\n\n,,\n")
    assert "Expected a table in CSV, as UTF-8 text" in message("path,label,split\n".encode("utf-16"))
    with pytest.raises(DataError, match="manifest: needs the path of a table"):
        read_dataset("manifest: ", tmp_path)


def test_a_class_with_one_image_is_named_and_not_trained_on(tmp_path: Path) -> None:
    data = read(make_table(tmp_path, *TRAINED, "lime/0.png,lime,train"))
    assert data.class_names == ["apple", "fig", "lime"]
    assert "lime/0.png" not in ids(data, data.train)
    assert "1 class has only one image and cannot be trained on." in data.notes
    with pytest.raises(DataError, match="has 1 class to train on"):
        read(make_table(tmp_path / "one", *rows("apple", "train", 3), "lime/0.png,lime,train"))


@pytest.mark.slow
def test_a_run_trains_on_a_table_and_keeps_its_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pddm_lab.gallery import changes
    from pddm_lab.training.trainer import train

    lines = [f"{line},{line[0]}" for name in "abcd" for line in rows(name, "train", 4) + rows(name, "test", 1)]
    lines += [f"{line},{line[0]}" for name in "ef" for line in rows(name, "test", 3)]
    make_table(tmp_path / "shop", *lines, header=f"{HEADER},letter")
    monkeypatch.chdir(tmp_path)
    few = TrainConfig(
        dataset="manifest:shop/split.csv", data_root="data", runs_root="runs", weights="none", run_name="run", views=1,
        steps=2, image_size=32, resize=32, classes_per_batch=2, images_per_class=2, val_class_share=0.0, workers=0,
    )  # fmt: skip
    run = train(few, progress=False)
    assert run.status == "finished" and run.config.dataset == f"manifest:{tmp_path / 'shop' / 'split.csv'}"
    assert sorted(run.protocols()) == ["known", "unseen"]
    gallery = run.gallery("known")
    assert gallery.metadata()["letter"].tolist() == [item[0] for item in gallery.items["id"]]
    letters = gallery.metadata()["letter"].tolist()
    assert changes.remove(gallery, gallery.items["id"][:1].tolist()).metadata()["letter"].tolist() == letters[1:]
