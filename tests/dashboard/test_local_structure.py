"""The pages with a run that has a similarity on local structure, against the run itself."""

from __future__ import annotations

import re
from pathlib import Path
from threading import Event, Semaphore

import numpy as np
import pytest
from reading import PATIENCE, blocks, rows_of, texts, tiles

from pddm_lab.analysis.gallery_dependence import dependence, examine_local
from pddm_lab.analysis.local_pairs import local_similarity_to, score_local_pairs
from pddm_lab.analysis.pairs import most_similar
from pddm_lab.gallery import changes
from pddm_lab.gallery.files import changing
from pddm_lab.gallery.umap_layout import write_map
from pddm_lab.gallery.upkeep import keep_up, needs_upkeep
from pddm_lab.runs.local import load_local
from pddm_lab.runs.run import Run
from pddm_lab.similarities import EVERY


@pytest.fixture(scope="module")
def searched(local_run):
    """A query of the unseen gallery, and its shortlist ranked by local structure."""
    local, gallery = load_local(local_run), local_run.gallery("unseen")
    assert local is not None
    row = int(gallery.rows("query")[3])
    return gallery, row, gallery.search_by(gallery.features[row], [], 20, row, local.structure)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Semaphore:
    """Released each time that the dashboard has tried to list neighbourhoods anew in the background."""
    from shared import loaders

    ended, in_the_background = Semaphore(0), loaders._keep_up

    def noted(*of) -> None:
        in_the_background(*of)
        ended.release()

    monkeypatch.setattr(loaders, "_keep_up", noted)
    return ended


def test_search_has_a_column_of_it(open_page, with_local: Path, searched) -> None:
    gallery, row, result = searched
    item = str(gallery.items["id"].iloc[row])
    app = open_page("search", run="local", protocol="unseen", item=item, shortlist="20")
    shown, ranked = tiles(blocks(app, "results_local")), result.ranked("local", 12)
    assert [one for one, *_ in shown] == ranked["id"].tolist()
    np.testing.assert_allclose([value for _, _, value, _ in shown], ranked["value"], atol=0.006)
    assert EVERY["local"].title in texts(app) and "Local structure " in texts(app)


def test_a_decision_that_takes_long_comes_later(
    open_page, with_local: Path, searched, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app_pages.search import decision

    from pddm_lab.analysis.decision import decision_of

    begin = Event()
    monkeypatch.setattr(decision, "AT_ONCE", 0.0)
    monkeypatch.setattr("pddm_lab.analysis.decision.decision_of", lambda *of: begin.wait() and decision_of(*of))
    gallery, row, _ = searched
    app = open_page("search", run="local", protocol="unseen", item=str(gallery.items["id"].iloc[row]), shortlist="20")
    assert "In the range?" in texts(app)
    begin.set()
    monkeypatch.setattr(decision, "AT_ONCE", PATIENCE / 2)
    after = texts(app.run())
    assert "In the range?" not in after
    assert re.search(r"\d+ % \*\*|Not in the range", after)


def test_why_shows_the_shared_neighbours(open_page, with_local: Path, searched, local_run) -> None:
    from pddm_lab.analysis.explain_local import explain_local

    gallery, row, result = searched
    item, other = (str(gallery.items["id"].iloc[one]) for one in (row, result.table["row"].iloc[4]))
    app = open_page("search", run="local", protocol="unseen", item=item, shortlist="20", view="why", why=other)
    local = load_local(local_run)
    assert local is not None
    explained = explain_local(
        gallery.reference(local.structure), gallery.features[row], None if gallery.pretrained is None else
        gallery.pretrained[row], int(result.table["row"].iloc[4]), result.table["row"].to_numpy(), row,
    )  # fmt: skip
    for sentence in explained.sentences():
        assert sentence in texts(app)
    pictured = blocks(app, "shared_neighbours")
    assert pictured.count('data-pick="') == len(explained.shared) > 0
    assert "Shared neighbours" in blocks(app, "contributions")


@pytest.mark.parametrize("view", ["thresholds", "joint", "density"])
def test_similarity_shows_it_beside_the_others(open_page, with_local: Path, local_run, view: str) -> None:
    gallery = local_run.gallery("unseen")
    pair = [str(item) for item in gallery.items["id"].iloc[[0, 1]]]
    app = open_page("similarity", run="local", protocol="unseen", view=view, left="local", right="pddm", pair=pair)
    assert app.query_params["left"] in ("local", ["local"])
    values = "".join(one.proto.body for one in app.get("html"))
    local = load_local(local_run)
    assert local is not None
    if view != "density":
        score = score_local_pairs(gallery, local.structure, np.array([0]), np.array([1]))[0]
        assert f"<dt>Local structure</dt><dd>{score:.3f}".replace("-", "−") in values


@pytest.mark.parametrize("protocol", ["unseen", "known"])
def test_the_map_is_coloured_by_it(open_page, with_local: Path, local_run, protocol: str) -> None:
    gallery, local = local_run.gallery(protocol), load_local(local_run)
    assert local is not None
    row = int(gallery.rows("query")[2])
    item = str(gallery.items["id"].iloc[row])
    app = open_page("map", run="local", protocol=protocol, colour="anchor", left="local", right="pddm", item=item)
    values = local_similarity_to(gallery, local.structure, row)
    best = most_similar(np.where(np.isnan(values), np.nanmin(values), values), row, 20)
    same = int((gallery.items["class_name"].iloc[best] == gallery.items["class_name"].iloc[row]).sum())
    assert f"left by {EVERY['local'].title} L" in texts(app) and f"Of the anchor's class: {same} left" in texts(app)


def test_queries_are_judged_by_it(open_page, with_local: Path, local_run) -> None:
    app = open_page("map", run="local", protocol="unseen", colour="error", by="local")
    measured = local_run.info["metrics"]["unseen"]["local"]
    assert f"right for **{100 * measured['recall@1']:.1f} %**" in texts(app)
    assert f"AP@R is **{100 * measured['map@r']:.1f} %**" in texts(app)


def test_audit_shows_how_it_depends_on_the_gallery(open_page, with_local: Path, local_run) -> None:
    gallery, local = local_run.gallery("unseen"), load_local(local_run)
    assert local is not None
    app = open_page("audit", run="local", protocol="unseen", compared="100")
    rows = dependence(gallery, local.structure, gallery.distributions["local"].threshold_at_fpr(0.01))
    bodies = [one.proto.body for one in app.get("html") if "other items leave" in one.proto.body]
    cells = rows_of(bodies[0])
    assert [line[1] for line in cells] == [f"{row.items:,}" for row in rows]
    assert [line[2] for line in cells] == [f"{row.mean:.3f} spreads" for row in rows]
    assert cells[0][0] == "a and b exchanged"
    reference, threshold = gallery.reference(local.structure), gallery.distributions["local"].threshold_at_fpr(0.01)
    checks = {check.name: check for check in examine_local(local.structure, reference, threshold, rows=100).checks()}
    title = EVERY["local"].title
    table = next(one.proto.body for one in app.get("html") if "Identity: closest to itself" in one.proto.body)
    (line,) = [cells for cells in rows_of(table) if cells[0].startswith(title)]
    assert f"{checks['symmetric'].value:.2g} spreads" in line[1] and f"{title}: " in texts(app)
    for look in ("triangle", "chains", "symmetric"):
        titles = texts(open_page("audit", run="local", protocol="unseen", compared="100", look=look, by="local"))
        assert look == "symmetric" or f"By {title}" in titles


PLACES = {
    "search": {}, "similarity": {"left": "local"}, "map": {"colour": "anchor", "left": "local"},
    "audit": {"compared": "100"},
}  # fmt: skip


@pytest.mark.slow
def test_pages_say_what_is_stale_until_it_is_listed_anew(open_page, with_local: Path, monkeypatch) -> None:
    from shared import loaders

    monkeypatch.setattr(loaders, "_keep_up", lambda *_: None)
    run = Run.open(with_local / "local")
    local, before = load_local(run), run.gallery("unseen")
    assert local is not None
    after = changes.remove(before, [str(before.items["id"].iloc[0])], local.structure)
    write_map(after.path)
    note = Run.open(run.path).gallery("unseen").reference(local.structure).stale_note
    assert "from before the last change of the gallery" in note
    for page, choices in PLACES.items():
        assert note in texts(open_page(page, run="local", protocol="unseen", **choices)), page
    keep_up(run.gallery("unseen"), local.structure)
    for page, choices in PLACES.items():
        assert "from before the last change" not in texts(open_page(page, run="local", protocol="unseen", **choices))


def test_an_open_dashboard_lists_anew_what_is_stale_and_stores_what_is_missing(
    with_local: Path, ended: Semaphore
) -> None:
    from shared import loaders

    run = Run.open(with_local / "local")
    local, gallery = load_local(run), run.gallery("unseen")
    assert local is not None
    for structure in (local.structure, None):  # without it they are dropped
        item = str(run.gallery("unseen").items["id"].iloc[0])
        changes.remove(run.gallery("unseen"), [item], structure)
        assert bool(loaders.stale_note(run, "unseen")) == (structure is not None)
        assert ended.acquire(timeout=PATIENCE)
        assert not needs_upkeep(run.gallery("unseen"), local.structure)
        assert not loaders.stale_note(run, "unseen")
    assert len(run.gallery("unseen")) == len(gallery) - 2


def test_what_another_process_kept_from_being_listed_anew_is_tried_again(with_local: Path, ended: Semaphore) -> None:
    from shared import loaders

    run = Run.open(with_local / "local")
    local, before = load_local(run), run.gallery("unseen")
    assert local is not None
    changes.remove(before, [str(before.items["id"].iloc[0])], local.structure)
    with changing(before.path):
        assert loaders.stale_note(run, "unseen")
        assert ended.acquire(timeout=PATIENCE)
    assert needs_upkeep(run.gallery("unseen"), local.structure)
    assert loaders.stale_note(run, "unseen") and ended.acquire(timeout=PATIENCE)
    assert not needs_upkeep(run.gallery("unseen"), local.structure) and not loaders.stale_note(run, "unseen")


def test_runs_compare_by_it(open_page, with_local: Path, local_run) -> None:
    app = open_page("runs", run="local")
    assert "unseen L" in app.dataframe[0].proto.column_order
    value = app.dataframe[0].value["unseen L"].iloc[0]
    assert value == pytest.approx(100 * local_run.info["metrics"]["unseen"]["local"]["recall@1"])
