"""CUB-200-2011, Cars196 and Stanford Online Products on small copies in their official layouts."""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from pddm_lab.data.dataset import Dataset, read_dataset
from pddm_lab.data.sources import cars196, cub200, products
from pddm_lab.errors import DataError


def _picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 6)).save(path)


def make_cub(data_root: Path, classes: int = 4, each: int = 4) -> Path:
    root = data_root / "CUB_200_2011"
    names = [f"{c:03}.Bird_{c}" for c in range(1, classes + 1)]
    items = [(name, f"{name}/{name[4:]}_{number:04}.jpg") for name in names for number in range(each)]
    for _, path in items:
        _picture(root / "images" / path)
    lists = {
        "classes.txt": names,
        "images.txt": [path for _, path in items],
        "image_class_labels.txt": [str(names.index(name) + 1) for name, _ in items],
    }
    for file, values in lists.items():
        (root / file).write_text("".join(f"{number} {value}\n" for number, value in enumerate(values, 1)))
    return root


def _records(**columns: Any) -> np.ndarray:
    """What scipy writes as a MATLAB struct array."""
    rows = list(zip(*columns.values(), strict=True))
    records = np.empty((1, len(rows)), dtype=[(name, object) for name in columns])
    for number, row in enumerate(rows):
        records[0, number] = row
    return records


NAMES = ["Acura RL Sedan 2012", "BMW X5 SUV 2007", "Ram C/V Cargo Van 2012", "smart fortwo 2012"]


def make_cars(data_root: Path, layout: str, folder: str = "cars196", each: int = 3) -> Path:
    root = data_root / folder
    classes = [c for c in range(1, 5) for _ in range(each)]
    files = [f"{number:05}.jpg" for number in range(1, len(classes) + 1)]
    names = np.array([NAMES], dtype=object)
    if layout == "list":
        paths = [f"car_ims/{file}" for file in files]
        root.mkdir(parents=True)
        savemat(
            root / "cars_annos.mat",
            {"annotations": _records(relative_im_path=paths, **{"class": classes}), "class_names": names},
        )
        for path in paths:
            _picture(root / path)
        return root
    halves = {"train": slice(0, None, 2), "test": slice(1, None, 2)}
    if layout == "devkit":
        (root / "devkit").mkdir(parents=True)
        savemat(root / "devkit" / "cars_meta.mat", {"class_names": names})
        places = {"train": root / "devkit" / "cars_train_annos.mat", "test": root / "cars_test_annos_withlabels.mat"}
        for split, half in halves.items():
            savemat(places[split], {"annotations": _records(fname=files[half], **{"class": classes[half]})})
            for file in files[half]:
                _picture(root / f"cars_{split}" / file)
        return root
    root.mkdir(parents=True)
    (root / "names.csv").write_text("".join(f"{name}\n" for name in NAMES))
    for split, half in halves.items():
        rows = list(zip(files[half], classes[half], strict=True))
        (root / f"anno_{split}.csv").write_text("".join(f"{file},1,2,30,40,{c}\n" for file, c in rows))
        for file, c in rows:
            _picture(root / "car_data" / "car_data" / split / NAMES[c - 1].replace("/", "-") / file)
    return root


def make_products(data_root: Path, each: int = 3) -> Path:
    root = data_root / "Stanford_Online_Products"
    number = 0
    for split, classes in (("train", (1, 2, 3)), ("test", (4, 5))):
        lines = ["image_id class_id super_class_id path"]
        for c in classes:
            for view in range(each):
                number += 1
                lines.append(f"{number} {c} 1 bicycle_final/11108{c}_{view}.JPG")
                _picture(root / f"bicycle_final/11108{c}_{view}.JPG")
        (root / f"Ebay_{split}.txt").write_text("\n".join(lines) + "\n")
    return root


def _check_halves(data: Dataset, train_classes: int) -> None:
    assert data.skipped == []
    assert set(data.labels[data.train]) == set(range(train_classes))
    assert data.unseen is not None
    assert data.unseen.leave_one_out
    assert set(data.labels[data.unseen.query]) == set(range(train_classes, len(data.class_names)))


def test_cub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_cub(tmp_path)
    monkeypatch.setattr(cub200, "COUNTS", (16, 4))
    data = read_dataset("cub200", tmp_path)
    assert data.class_names == ["Bird_1", "Bird_2", "Bird_3", "Bird_4"]
    assert data.ids[4] == "images/002.Bird_2/Bird_2_0000.jpg"
    assert data.labels[4] == 1
    _check_halves(data, 2)
    assert data.known is not None
    assert len(data.known.query) == 2
    assert read_dataset("cub200", tmp_path, known_query_share=0.0).known is None


@pytest.mark.parametrize("layout", ["list", "devkit", "csv"])
def test_cars_in_each_layout(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make_cars(tmp_path, layout)
    monkeypatch.setattr(cars196, "COUNTS", (12, 4))
    assert cars196.is_present(tmp_path)
    data = read_dataset("cars196", tmp_path)
    assert [name.replace("/", "-") for name in data.class_names] == [name.replace("/", "-") for name in NAMES]
    assert np.bincount(data.labels).tolist() == [3, 3, 3, 3]
    _check_halves(data, 2)


def test_cars_under_the_other_usual_name(tmp_path: Path) -> None:
    make_cars(tmp_path, "list", folder="stanford_cars")
    assert len(cars196.list_items(tmp_path, counts=(12, 4)).ids) == 12


def test_cars_with_a_single_annotation(tmp_path: Path) -> None:
    make_cars(tmp_path, "devkit", each=1)
    assert len(cars196.list_items(tmp_path, counts=(4, 4)).ids) == 4


def test_products(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_products(tmp_path)
    monkeypatch.setattr(products, "COUNTS", (15, 5))
    data = read_dataset("products", tmp_path)
    assert data.class_names == [f"bicycle {c}" for c in range(1, 6)]
    assert data.ids[0] == "bicycle_final/111081_0.JPG"
    _check_halves(data, 3)


@pytest.mark.parametrize(
    ("module", "make", "counts"),
    [
        (cub200, make_cub, "11788 of 200"),
        (cars196, lambda root: make_cars(root, "list"), "16185 of 196"),
        (products, make_products, "120053 of 22634"),
    ],
)
def test_published_counts_are_insisted_on(tmp_path: Path, module, make, counts: str) -> None:
    make(tmp_path)
    with pytest.raises(DataError, match=rf"lists \d+ images of \d classes; .* has {counts}.*pddm-lab data fetch"):
        module.list_items(tmp_path)


def _error(list_items, data_root: Path, counts: tuple[int, int]) -> str:
    with pytest.raises(DataError) as caught:
        list_items(data_root, counts=counts)
    return str(caught.value)


def test_cub_lists_that_do_not_fit(tmp_path: Path) -> None:
    root = make_cub(tmp_path)
    (root / "image_class_labels.txt").write_text("1 1\n2 1\n")
    assert "image_class_labels.txt does not match" in _error(cub200.list_items, tmp_path, (16, 4))
    (root / "classes.txt").unlink()
    assert "does not have the layout of CUB-200-2011" in _error(cub200.list_items, tmp_path, (16, 4))
    assert "classes.txt is missing" in _error(cub200.list_items, tmp_path, (16, 4))


def test_cars_wrong_layouts(tmp_path: Path) -> None:
    root = make_cars(tmp_path, "devkit")
    (root / "cars_test_annos_withlabels.mat").unlink()
    assert "does not have a layout of Cars196: expected cars_annos.mat" in _error(cars196.list_items, tmp_path, (12, 4))
    (root / "devkit" / "cars_test_annos_withlabels.mat").write_bytes(b"nothing of MATLAB's")
    assert "Expected a MATLAB file with annotations" in _error(cars196.list_items, tmp_path, (12, 4))
    savemat(root / "devkit" / "cars_test_annos_withlabels.mat", {"something": 1})
    assert "has no annotations" in _error(cars196.list_items, tmp_path, (12, 4))
    other = make_cars(tmp_path / "csv", "csv")
    (other / "anno_test.csv").write_text("1.jpg,1,2,3,4,9\n")
    assert "expected classes from 1 to 4" in _error(cars196.list_items, tmp_path / "csv", (12, 4))
    one = make_cars(tmp_path / "list", "list")
    wrong = _records(relative_im_path=["car_ims/1.jpg"] * 2, **{"class": [0, 5]})
    savemat(one / "cars_annos.mat", {"annotations": wrong, "class_names": np.array([NAMES], dtype=object)})
    assert "a class outside 1 to 4" in _error(cars196.list_items, tmp_path / "list", (12, 4))


def test_products_lists_that_share_classes(tmp_path: Path) -> None:
    root = make_products(tmp_path)
    (root / "Ebay_test.txt").write_text("image_id class_id super_class_id path\n1 3 1 bicycle_final/1_0.JPG\n")
    assert "share the classes [3]" in _error(products.list_items, tmp_path, (15, 5))


@pytest.mark.parametrize(
    ("module", "make", "inner"),
    [
        (cub200, make_cub, "CUB_200_2011"),
        (cars196, lambda root: make_cars(root, "csv"), "cars196"),
        (products, make_products, "Stanford_Online_Products"),
    ],
)
def test_downloads_land_under_the_usual_name(
    tmp_path: Path, module, make, inner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = make(tmp_path / "published")
    archive = tmp_path / ("a.tgz" if module is cub200 else "a.zip")
    top = "." if module is cars196 else inner  # the archive of cars has no folder of its own
    if module is cub200:
        with tarfile.open(archive, "w:gz") as file:
            file.add(published, top)
    else:
        with zipfile.ZipFile(archive, "w") as packed:
            for path in published.rglob("*"):
                packed.write(path, top / path.relative_to(published))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(module, "ARCHIVE", replace(module.ARCHIVE, url=archive.as_uri(), sha256=digest))
    root = tmp_path / "data"
    assert module.fetch(root) == root / inner
    assert module.is_present(root)
    assert [path.name for path in root.iterdir()] == [inner]
    archive.unlink()
    assert module.fetch(root) == root / inner, "what is there is not downloaded again"
    monkeypatch.setattr(module, "ARCHIVE", replace(module.ARCHIVE, url=archive.as_uri()))
    with pytest.raises(DataError, match=r"Cannot download .*No such file.*Expected a network.* Or "):
        module.fetch(tmp_path / "other")
    assert list((tmp_path / "other").iterdir()) == []


def test_published_checksums() -> None:
    assert all(len(module.ARCHIVE.sha256) == 64 for module in (cub200, products))
