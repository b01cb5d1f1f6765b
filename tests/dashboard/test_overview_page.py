"""The Overview page against the run itself, runs that have less to show, and what the lab brings with it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from reading import blocks, rows_of, texts

from pddm_lab.analysis.lead import judge_queries, lead, sentence, strongest
from pddm_lab.files import shipped
from pddm_lab.runs.local import load_local
from pddm_lab.runs.model import load_similarities


@pytest.fixture(scope="module")
def ranked(local_run):
    """The judged queries of the run's unseen classes, and its gallery."""
    gallery, local = local_run.gallery("unseen"), load_local(local_run)
    assert local is not None
    return judge_queries(gallery, {"local": local.structure, "pddm": load_similarities(local_run)["pddm"]}), gallery


def picked(app, key: str) -> list[str]:
    """The queries of a block's rows, in their order; none where there is no such block."""
    if key not in {one.key for one in app.get("bidi_component")}:
        return []
    return re.findall(r'class="pl-answer" data-pick="([^"]+)"', blocks(app, key))


def test_it_says_the_answer_and_shows_the_queries(open_page, with_local: Path, ranked) -> None:
    of, gallery = ranked
    labels, ids = gallery.items["label"].to_numpy(), gallery.items["id"].to_numpy()
    app = open_page("overview", run="local")
    expected = lead(of, labels, "local")
    assert app.header[0].value == sentence(expected, "unseen")
    assert f"L ranks {expected.better} of them better than D, {expected.worse} worse" in texts(app)
    (table,) = [block.value for block in app.html if "pl-table" in block.value.rpartition("</style>")[2]]
    row = next(row for row in rows_of(table) if row[0] == "Local structure")
    assert row[3].replace("−", "-").startswith(f"{100 * expected.difference:+.1f}")
    for key, wins in (("wins", True), ("losses", False)):
        assert picked(app, key) == ids[of.rows[strongest(of, labels, "local", wins, one_a_class=True)]].tolist()
    assert (with_local / "local" / "lead-unseen.safetensors").is_file()

    first = blocks(app, "wins").split('class="pl-answer"')[1]
    own, name = int(of.rows[strongest(of, labels, "local", True, 1)[0]]), gallery.items["class_name"]
    nearest, _ = gallery.search(gallery.features[own][None], 6, exclude=own)
    looks = re.findall(r'class="pl-(hit|miss)"', first)[:6]
    assert looks == ["hit" if name[row] == name[own] else "miss" for row in nearest[0]]

    chosen = str(name[own])
    app = open_page("overview", run="local", **{"class": chosen})
    shown = picked(app, "wins") + picked(app, "losses")
    assert shown and {str(name[gallery.index_of(item)]) for item in shown} == {chosen}


def test_search_opens_on_the_strongest_query(open_page, with_local: Path, ranked) -> None:
    of, gallery = ranked
    labels = gallery.items["label"].to_numpy()
    best = str(gallery.items["id"].iloc[of.rows[strongest(of, labels, "local", True, 1)[0]]])
    app = open_page("search", run="local", protocol="unseen")
    assert any(f"<dd>{best}</dd>" in block.value for block in app.html)
    assert f"<dd>{best}</dd>" not in str([block.value for block in open_page("search", run="local", item="no").html])


def test_a_picked_row_opens_search(open_page, with_local: Path, ranked) -> None:
    item = str(ranked[1].items["id"].iloc[3])
    app = open_page("overview", run="local", protocol="unseen")
    app.session_state["overview_item"] = item  # as a click leaves it
    app.run()
    assert app.title[0].value == "Search" and any(f"<dd>{item}</dd>" in block.value for block in app.html)


def test_a_run_without_a_local_similarity_shows_what_d_finds(open_page, runs_folder: Path, tmp_path: Path) -> None:
    from no_maps import NoMaps

    from pddm_lab.training import finish
    from pddm_lab.training.imports import import_features

    rng, labels = np.random.default_rng(0), np.arange(60) % 6
    np.save(tmp_path / "f.npy", rng.normal(size=(6, 8))[labels] + 0.3 * rng.normal(size=(60, 8)))
    pd.DataFrame({"id": np.arange(60), "label": labels}).to_csv(tmp_path / "labelled.csv", index=False)
    pd.DataFrame({"id": np.arange(60)}).to_csv(tmp_path / "bare.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finish, "start_map", NoMaps)
        for name in ("labelled", "bare"):
            import_features(name, tmp_path / "f.npy", tmp_path / f"{name}.csv", runs_root=str(runs_folder), shown=False)
    text = texts(open_page("overview", run="labelled"))
    assert re.search(r"D reaches \d+\.\d % \(\d+\.\d to \d+\.\d\) MAP@R", text) and "Found worst by D" in text
    text = texts(open_page("overview", run="bare"))
    assert "bare has 60 items to search; without labels nothing is right or wrong." in text


def test_a_fresh_install_shows_the_studys_results_and_what_to_do_first(open_page, runs_folder: Path) -> None:
    app = open_page("overview")
    table = pd.read_csv(shipped("notebooks/results/local-differences.csv"))
    rows = table[(table.embedding == "quick") & (table.metric == "map@r") & (table.against == "D")]
    rows = rows[rows.protocol.isin(["unseen", "known"])]
    low, high = rows.difference.min(), rows.difference.max()
    assert "No runs yet" in texts(app) and "pddm-lab train lab" in app.code[0].value
    assert f"L finds {low:.0f} to {high:.0f} points more MAP@R than D in all 8 comparisons" in texts(app)

    app = open_page("runs", view="study", data="grocery", protocol="known")
    assert "surely ahead of D in 8 of 8" in texts(app)
    shown = next(one.value for one in app.dataframe if "difference_half" in one.value)
    means = pd.read_csv(shipped("notebooks/results/compare.csv")).query(
        "dataset == 'grocery' and protocol == 'known' and metric == 'map@r'"
    )
    assert shown["value"].tolist() == pytest.approx((100 * means["value"]).sort_values(ascending=False).tolist())
    against = pd.read_csv(shipped("notebooks/results/versus.csv")).query(
        "dataset == 'grocery' and protocol == 'known' and metric == 'map@r'"
    )
    assert sorted(shown["difference"].dropna()) == pytest.approx(sorted(100 * against["difference"]))
    assert shown["name"].str.endswith("★").sum() == 1
