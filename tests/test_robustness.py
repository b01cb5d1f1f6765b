"""Robustness of a small run: cells recomputed by slow loops, resumed, narrowed, and summed up."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pddm_lab import cli
from pddm_lab.data.images import open_image
from pddm_lab.errors import ConfigError, RunError
from pddm_lab.gallery import changes
from pddm_lab.robustness import measure
from pddm_lab.robustness.cells import CLEAN, METRICS, Measurement, measurements
from pddm_lab.robustness.corruptions import CORRUPTIONS, corrupt, square_of
from pddm_lab.robustness.findings import leads, summarise
from pddm_lab.robustness.measure import measure_robustness
from pddm_lab.robustness.sample import Sample, draw_sample
from pddm_lab.runs.model import embedder, load_similarities
from pddm_lab.runs.run import Run

CHOICES: dict[str, Any] = {
    "corruptions": ("gaussian_noise", "occlusion"), "strengths": (2, 5), "queries": 12, "items": 60
}  # fmt: skip


@pytest.fixture(scope="module")
def measured(local_run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Measurement]:
    folder = tmp_path_factory.mktemp("robust") / "local"
    shutil.copytree(local_run.path, folder)
    run = Run.open(folder)
    return run, measure_robustness(run, **CHOICES, processes=1)


@pytest.fixture(scope="module")
def pictures(measured) -> tuple[Sample, np.ndarray, np.ndarray]:
    """The sample, and the features of its items, as they are and occluded, made one by one."""
    run = measured[0]
    sample, embed = draw_sample(run, "unseen", 12, 60, 0), embedder(run)
    squares = [square_of(open_image(path)) for path in sample.paths]
    occluded = [corrupt(square, item, "occlusion", 5) for square, item in zip(squares, sample.ids, strict=True)]
    clean, changed = (
        np.stack([embed.embed_all([embed.prepare(Image.fromarray(one))])[0][0] for one in both])
        for both in (squares, occluded)
    )
    return sample, clean, changed


def test_every_cell_is_there(measured) -> None:
    run, kept = measured
    table = kept.table()
    cells = table[["side", "corruption", "strength"]].drop_duplicates()
    assert len(cells) == 1 + 3 * 2 * 2 and tuple(cells.iloc[0]) == CLEAN
    assert set(table["similarity"]) == {"euclidean", "mahalanobis", "pddm", "local", "pretrained"}
    assert table[list(METRICS)].notna().all(axis=None) and table["recall@1"].between(0, 1).all()
    assert [one.path for one in measurements(run)] == [kept.path]


@pytest.mark.parametrize("side", ["query", "gallery", "both"])
def test_a_cell_is_what_plain_loops_find(measured, pictures, side: str) -> None:
    run, kept = measured
    sample, clean, changed = pictures
    gallery = (clean if side == "query" else changed)[sample.searched].astype(float)
    pddm, precisions = load_similarities(run)["pddm"], []
    hits: dict[str, list[bool]] = {"euclidean": [], "pddm": []}
    for row in sample.query:
        query, right = (
            (clean if side == "gallery" else changed)[row].astype(float),
            sample.labels[sample.searched] == sample.labels[row],
        )
        with torch.no_grad():
            scores = {
                "euclidean": -np.linalg.norm(gallery - query, axis=1),
                "pddm": pddm(torch.tensor(query).float(), torch.tensor(gallery).float()).numpy(),
            }
        for name, of in scores.items():
            hits[name].append(bool(right[of.argmax()]))
        order = np.argsort(-scores["euclidean"], kind="stable")
        relevant = int(right.sum())
        ranked = right[order][:relevant]
        precisions.append(sum(ranked[: k + 1].mean() for k in range(relevant) if ranked[k]) / relevant)
    cell = kept.table().query("side == @side and corruption == 'occlusion' and strength == 5").set_index("similarity")
    for name, of in hits.items():
        assert cell.loc[name, "recall@1"] == pytest.approx(np.mean(of))
    assert cell.loc["euclidean", "map@r"] == pytest.approx(np.mean(precisions), abs=1e-6)
    kept_hits = kept.outcomes().query("side == @side and corruption == 'occlusion' and strength == 5")
    assert np.array_equal(kept_hits["euclidean"], np.array(hits["euclidean"], float))


def test_it_resumes_and_computes_only_what_is_missing(measured, monkeypatch: pytest.MonkeyPatch) -> None:
    run, kept = measured
    before = kept.table()
    monkeypatch.setattr(measure, "Embedding", lambda *_: pytest.fail("everything is measured"))
    assert measure_robustness(run, **CHOICES, processes=1).path == kept.path
    monkeypatch.undo()
    (kept.path / "cells" / "both.occlusion.2.json").unlink()
    done = []
    again = measure_robustness(run, **CHOICES, processes=1, progress=lambda at, of, what: done.append((at, of, what)))
    assert again.table().drop(columns="seconds").equals(before.drop(columns="seconds"))
    assert {what for *_, what in done} == {"reading pictures", "clean 0", "occlusion 2"}
    assert done[-1][0] == done[-1][1]
    (run.path / "model.safetensors").write_bytes((run.path / "model.safetensors").read_bytes() + b" ")
    with pytest.raises(RunError, match="is of another model or of other items: delete that folder"):
        measure_robustness(run, **CHOICES, processes=1)


def test_the_summary_is_that_of_the_cells(measured) -> None:
    kept = measured[1]
    table, means = kept.table(), summarise(kept).set_index(["side", "similarity"])
    for (side, name), row in means.iterrows():
        of = table[(table["similarity"] == name) & (table["side"] == side) & (table["corruption"] != "clean")]
        before = table[(table["similarity"] == name) & (table["corruption"] == "clean")]["recall@1"].item()
        assert row["clean"] == pytest.approx(before) and row["corrupted"] == pytest.approx(of["recall@1"].mean())
        assert row["low"] <= row["corrupted"] <= row["high"] and row["cells"] == 4
        assert row["kept"] == pytest.approx(row["corrupted"] / before)
        errors = 1 - table[table["side"] == side].pivot_table("recall@1", "corruption", "similarity", sort=False)
        ratios = [errors.loc[one, name] / errors.loc[one, "pretrained"] for one in CHOICES["corruptions"]]
        assert row["mce"] == pytest.approx(np.mean(ratios))
    ahead = leads(kept).set_index(["side", "similarity", "of"])["lead"]
    assert ahead["both", "local", "corrupted"] == pytest.approx(
        means.loc[("both", "local"), "corrupted"] - means.loc[("both", "euclidean"), "corrupted"]
    )
    change = ahead["both", "local", "corrupted"] - ahead["both", "local", "clean"]
    assert ahead["both", "local", "change"] == pytest.approx(change)


def test_whole_classes_are_drawn(local_run) -> None:
    gallery = local_run.gallery("unseen")
    sample = draw_sample(local_run, "unseen", 9, 45, 3)
    of = gallery.items.set_index("id")["label"]
    classes = set(sample.labels.tolist())
    assert len(sample.query) == 9 and len(sample.searched) <= 45 and not set(sample.query) & set(sample.searched)
    assert set(sample.ids) == {item for item, label in of.items() if label in classes}
    right, wrong = sample.pairs.split([16, 32], dim=1)
    assert (sample.searched_labels[right] == sample.query_labels[:, None]).all()
    assert (sample.searched_labels[wrong] != sample.query_labels[:, None]).all()
    assert all(sample.query_labels.tolist().count(label) <= count // 2 for label, count in of.value_counts().items())
    known = draw_sample(local_run, "known", 9, 45, 3)
    assert len(known.query) == 9 and not set(known.query) & set(known.searched)


def test_items_that_were_added_or_replaced_are_read_from_their_own_files(local_run, tmp_path: Path) -> None:
    shutil.copytree(local_run.path, tmp_path / "local")
    run = Run.open(tmp_path / "local")
    gallery = run.gallery("unseen")
    files = [tmp_path / "replaced.png", tmp_path / "added.png"]
    for file in files:
        Image.new("RGB", (32, 32), "red").save(file)
    assert gallery.pretrained is not None
    features, pretrained = np.array(gallery.features), np.array(gallery.pretrained)
    first, new = gallery.items.iloc[[0]], gallery.items.iloc[[1]].assign(id="new/a.png")
    thumbs = [gallery.thumb(0)]
    changed = changes.update(gallery, changes.NewItems(first, features[[2]], thumbs, files[:1], pretrained[[2]]))
    changes.add(changed, changes.NewItems(new, features[[1]], thumbs, files[1:], pretrained[[1]]))
    sample = draw_sample(run, "unseen", 9, 10_000, 3)
    path_of = dict(zip(sample.ids, sample.paths, strict=True))
    root = Path(run.info["dataset"]["root"])
    assert path_of.pop(str(first["id"].item())) == files[0] and path_of.pop("new/a.png") == files[1]
    assert path_of and all(path == root / item for item, path in path_of.items())
    files[1].unlink()
    with pytest.raises(RunError, match=f"1 of .* are missing, the first is {files[1]}"):
        draw_sample(run, "unseen", 9, 10_000, 3)


def test_wrong_choices_are_one_sentence(local_run, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong, message in (
        ({"corruptions": ("fogg",)}, "Unknown corruption 'fogg'"),
        ({"sides": ("left",)}, "Unknown side 'left'"),
        ({"strengths": (6,)}, "--strengths expects 1 to 5, got 6"),
        ({"corruptions": ("background",)}, "Background isn't offered for local: The background can be exchanged"),
    ):
        with pytest.raises(ConfigError, match=message):
            measure_robustness(local_run, **wrong)
    assert set(CORRUPTIONS) >= {"background"}
    monkeypatch.setitem(local_run.info["dataset"], "root", "/nowhere")
    with pytest.raises(RunError, match="robustness needs the pictures of the data set"):
        measure_robustness(local_run)
    monkeypatch.setitem(local_run.info["dataset"], "labelled", False)
    with pytest.raises(RunError, match="have no labels"):
        measure_robustness(local_run)


def test_a_damaged_cell_is_named(measured, tmp_path: Path) -> None:
    shutil.copytree(measured[1].path, tmp_path / "robustness" / "one")
    cell = tmp_path / "robustness" / "one" / "cells" / "query.occlusion.5.json"
    cell.write_text('{"side": "query"')
    with pytest.raises(RunError, match=r"query\.occlusion\.5\.json is damaged"):
        Measurement.open(tmp_path / "robustness" / "one").table()
    with pytest.raises(RunError, match="has no measurement of robustness"):
        Measurement.open(tmp_path)


def test_the_command_measures_and_sums_up(local_run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(local_run.path, tmp_path / "local")
    words = ["--queries", "6", "--items", "30", "--corruptions", "contrast", "--strengths", "4", "--sides", "query"]
    cli.main(["robustness", str(tmp_path / "local"), *words, "--processes", "1", "--csv", str(tmp_path / "cells.csv")])
    out = capsys.readouterr().out
    assert "Corrupted: the query. R@1 in %, mean of 1 corruption in 1 cell, 6 queries among 22 items" in out
    assert "Left out: background. The background can be exchanged where pictures lie on white" in out
    table = pd.read_csv(tmp_path / "cells.csv")
    assert len(table) == 2 * 5 and set(table["corruption"]) == {"clean", "contrast"}
    (line,) = [line for line in out.splitlines() if line.startswith("Pretrained features")]
    clean, corrupted = (
        table.query("similarity == 'pretrained' and corruption == @of")["recall@1"].item()
        for of in ("clean", "contrast")
    )
    assert line.split()[2:4] == [f"{100 * clean:.1f}", f"{100 * corrupted:.1f}"]
    with pytest.raises(SystemExit):
        cli.main(["robustness", str(tmp_path / "local"), "--strengths", "9"])
    assert "--strengths expects" in capsys.readouterr().err


def test_cells_of_other_items_are_not_continued(local_run, tmp_path: Path) -> None:
    shutil.copytree(local_run.path, tmp_path / "local")
    run, numbers = Run.open(tmp_path / "local"), (9, 45, 3)
    sample = draw_sample(run, "unseen", *numbers)
    kept = Measurement.create(run, "unseen", sample, numbers, {})
    assert Measurement.create(run, "unseen", sample, numbers, {}).settings == kept.settings
    labels, relabelled, ids = sample.labels.copy(), sample.labels.copy(), list(sample.ids)
    searched, query = sample.searched[0], sample.query[0]
    labels[searched], ids[searched] = labels[searched] + 1, "another.png"
    relabelled[query] += 1
    larger, paths = tmp_path / "larger.png", list(sample.paths)
    larger.write_bytes(paths[searched].read_bytes() + b" ")
    paths[searched] = larger
    others = [replace(sample, labels=labels), replace(sample, ids=ids), replace(sample, paths=paths)]
    for other in others:
        with pytest.raises(RunError, match="of another model or of other items: delete that folder"):
            Measurement.create(run, "unseen", other, numbers, {})
    file = kept.path / "settings.json"
    earlier = {name: value for name, value in kept.settings.items() if name != "items"}
    file.write_text(json.dumps(earlier))
    for other in (sample, *others):
        Measurement.create(run, "unseen", other, numbers, {})  # an earlier version noted only the queries
    with pytest.raises(RunError, match="of another model or of other items: delete that folder"):
        Measurement.create(run, "unseen", replace(sample, labels=relabelled), numbers, {})
