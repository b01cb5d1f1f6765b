"""The Similarity page against the files of a real run."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import link
from reading import blocks, markdown, numbers, texts

from pddm_lab.files import fingerprint
from pddm_lab.runs.run import Run

SAMPLED = 20_000


@pytest.fixture(autouse=True)
def fewer_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample that is smaller than what there is, and quick to score."""
    monkeypatch.setattr("shared.loaders.SAMPLED", SAMPLED)


def test_similarity_reads_the_rates_off_the_histograms(open_page, with_digits: Path) -> None:
    app = open_page("similarity", run="digits", left_euclidean="0.60", right="mahalanobis")
    assert app.slider(key="left_euclidean").value == 0.6
    assert app.get_by_key("right").value == "mahalanobis"
    shown = [metric.value for metric in app.metric]
    for at, protocol in enumerate(("unseen", "known")):
        folder = with_digits / "digits" / "gallery" / protocol
        bins = pd.read_parquet(folder / "distributions.parquet").query("similarity == 'euclidean'")
        accepted = bins["left"] >= -0.6
        tpr, fpr = (100 * bins.loc[accepted, kind].sum() / bins[kind].sum() for kind in ("positive", "negative"))
        precision = (
            100 * bins.loc[accepted, "positive"].sum() / bins.loc[accepted, ["positive", "negative"]].sum().sum()
        )
        for text, expected in zip(shown[6 * at : 6 * at + 3], (tpr, fpr, precision), strict=True):
            assert float(text.removesuffix(" %")) == pytest.approx(expected, abs=0.6)
    measured = json.loads((with_digits / "digits" / "run.json").read_text())["metrics"]
    assert f"ROC AUC **{measured['known']['mahalanobis']['auc']:.4f}**" in texts(app)
    assert f"EER **{100 * measured['unseen']['euclidean']['eer']:.1f}** %" in texts(app)


def test_similarity_moves_with_the_slider(open_page, with_digits: Path) -> None:
    app = open_page("similarity", run="digits")
    slider = app.slider(key="left_euclidean")
    assert float(app.metric[1].value.removesuffix(" %")) == pytest.approx(1, abs=0.2)
    slider.set_value(slider.max).run()
    assert [metric.value for metric in app.metric[:2]] == ["100.0 %", "100.00 %"]


class Files:
    """The pairs of a run's gallery as its files have them."""

    def __init__(self, runs: Path, protocol: str, name: str = "digits") -> None:
        self.run = Run.open(runs / name)
        folder = self.run.path / "gallery" / protocol
        self.items = pd.read_parquet(folder / "items.parquet").set_index("id", drop=False)
        self.features = dict(zip(self.items["id"], np.load(folder / "features.npy").astype(float), strict=True))

    def distance(self, a: str, b: str) -> float:
        return float(np.sqrt(((self.features[a] - self.features[b]) ** 2).sum()))

    def alike(self, a: str, b: str) -> bool:
        return bool(self.items["label"][a] == self.items["label"][b])


def cards_of(body: str) -> list[tuple[str, str, bool, list[float]]]:
    """(item, item, positive, values shown) of each pair card."""
    cards = []
    for kind, pick, rest in re.findall(
        r'class="pl-pair pl-(positive|negative)[^"]*" data-pick="([^"]*)"(.*?)(?=class="pl-pair |$)', body, re.S
    ):
        values = re.findall(r"<span><i[^>]*>.*?</i> (\S+?)</span>", rest)
        a, b = json.loads(html.unescape(pick))
        cards.append((a, b, kind == "positive", [float(value.replace("−", "-")) for value in values]))
    return cards


def test_sampled_pairs_carry_their_classes_scores_and_density(with_digits: Path) -> None:
    from shared import loaders

    from pddm_lab.metrics.density import density_of, local_radius

    run = Run.open(with_digits / "digits")
    gallery, pairs = run.gallery("known"), loaders.sampled_pairs(run, "known")
    roles, labels = gallery.items["role"].to_numpy(), gallery.items["label"].to_numpy()
    assert (roles[pairs["a"]] == "query").all() and (roles[pairs["b"]] == "gallery").all()
    assert ((pairs["label_a"] == pairs["label_b"]) == pairs["positive"]).all()
    assert (labels[pairs["a"]] == pairs["label_a"]).all() and (labels[pairs["b"]] == pairs["label_b"]).all()
    features = gallery.features.astype(float)
    distance = ((features[pairs["a"]] - features[pairs["b"]]) ** 2).sum(axis=1) ** 0.5
    assert pairs["euclidean"].to_numpy() == pytest.approx(-distance, abs=1e-5)
    radius = local_radius(gallery.features)
    expected = density_of((radius[pairs["a"]] + radius[pairs["b"]]) / 2)
    assert (pairs["density"] == expected).all()
    assert loaders.sampled_pairs(run, "known") is pairs


def test_the_pairs_closest_to_a_threshold_on_either_side(open_page, with_digits: Path) -> None:
    app = open_page("similarity", run="digits", left_euclidean="0.60", protocol="known")
    files = Files(with_digits, "known")
    queries, searched = ((files.items["role"] == role).sum() for role in ("query", "gallery"))
    assert f"{SAMPLED:,} of {queries * searched:,} pairs were scored one by one" in texts(app)
    for kind in ("positive", "negative"):
        cards = cards_of(blocks(app, f"strip_digits_{kind}"))
        assert len(cards) == 10
        for place, (a, b, positive, (value,)) in enumerate(cards):
            assert positive == files.alike(a, b) == (kind == "positive")
            assert value == pytest.approx(files.distance(a, b), abs=1e-4)
            assert (value <= 0.6) == (place >= 5)
        assert [value for *_, (value,) in cards] == sorted((value for *_, (value,) in cards), reverse=True)
    from shared import loaders

    pairs = loaders.scored_pairs(files.run, "known")
    of_kind = pairs.loc[~pairs["positive"], "euclidean"].to_numpy()
    nearest = np.sort(-of_kind[of_kind >= -0.6])[::-1][:5]
    assert [value for *_, (value,) in cards[5:]] == pytest.approx(nearest, abs=1e-4)


def test_one_similarity_against_the_other_counts_and_opens_the_quadrants(open_page, with_digits: Path) -> None:
    from shared import loaders

    query = {"run": "digits", "view": "joint", "left_euclidean": "0.60", "protocol": "known"}
    app = open_page("similarity", **query)
    at = app.slider(key="right_pddm").value
    pairs = loaders.scored_pairs(Run.open(with_digits / "digits"), "known")
    accept = {"x": -pairs["euclidean"] <= 0.6, "y": pairs["pddm"] >= at}
    expected = {
        "y": accept["y"] & ~accept["x"], "x": accept["x"] & ~accept["y"],
        "both": accept["x"] & accept["y"], "neither": ~accept["x"] & ~accept["y"],
    }  # fmt: skip
    table = next(str(one.value) for one in app.get("html") if "pl-quadrants" in str(one.value))
    counts = [int(text.replace(",", "")) for text in re.findall(r"<b>([\d,]+)</b>", table)]
    for place, name in enumerate(("y", "both", "neither", "x")):
        assert counts[2 * place] == (expected[name] & pairs["positive"]).sum()
        assert counts[2 * place + 1] == (expected[name] & ~pairs["positive"]).sum()
    for name, kind in (("y", "all"), ("x", "negative"), ("both", "positive"), ("neither", "all")):
        app = open_page("similarity", **query, quadrant=name, kind=kind)
        rows = expected[name] & (pairs["positive"] == (kind == "positive") if kind != "all" else True)
        assert rows.any()
        assert f"**{rows.sum():,}** of {len(pairs):,}" in texts(app)
        cards = cards_of(blocks(app, "quadrant_pairs"))
        assert len(cards) == min(16, rows.sum())
        for *_, positive, (distance, score) in cards:
            assert (distance <= 0.6) == (name in ("x", "both"))
            assert (score >= at) == (name in ("y", "both"))
            assert kind == "all" or positive == (kind == "positive")


def test_a_density_is_that_third_alone(open_page, with_digits: Path) -> None:
    from shared import loaders

    pairs = loaders.sampled_pairs(Run.open(with_digits / "digits"), "unseen")
    app = open_page("similarity", run="digits", view="joint", where="sparse")
    assert f"of {(pairs['density'] == 2).sum():,} scored pairs" in texts(app)
    ids, sparse = Files(with_digits, "unseen").items["id"].to_numpy(), pairs[pairs["density"] == 2]
    allowed = {frozenset(pair) for pair in zip(ids[sparse["a"]], ids[sparse["b"]], strict=True)}
    for query in ({"view": "joint"}, {}):
        app = open_page("similarity", run="digits", where="sparse", **query)
        key = "quadrant_pairs" if query else "strip_digits_negative"
        cards = cards_of(blocks(app, key))
        assert cards and all(frozenset(card[:2]) in allowed for card in cards)


def test_the_joint_plot_shows_the_thresholds_and_says_how_many_points(open_page, with_digits: Path) -> None:
    app = open_page("similarity", run="digits", view="joint", left_euclidean="0.60")
    figure = json.loads(app.get("plotly_chart")[0].proto.spec)
    lines = [shape for shape in figure["layout"]["shapes"] if shape["type"] == "line"]
    assert (lines[0]["x0"], lines[1]["y0"]) == (0.6, app.slider(key="right_pddm").value)
    points = [trace for trace in figure["data"] if trace.get("mode") == "markers"]
    drawn = sum(len(numbers(trace["x"])) for trace in points)
    assert f"{drawn:,} of" in texts(app)
    left, right = figure["layout"]["xaxis"]["range"]
    assert left > right, "a distance's axis runs from less to more similar"


def test_a_picked_pair_is_shown_by_every_similarity_and_marked(open_page, with_digits: Path) -> None:
    files = Files(with_digits, "known")
    a, b = files.items["id"].iloc[3], files.items["id"].iloc[-1]
    for view in ("thresholds", "joint"):
        app = open_page("similarity", run="digits", view=view, protocol="known", left_euclidean="0.60", pair=[a, b])
        fact = next(str(one.value) for one in app.get("html") if "Mahalanobis</dt>" in str(one.value))
        distance = files.distance(a, b)
        ((value, verdict),) = re.findall(r"Euclidean</dt><dd>([\d.]+) · (\w+)", fact)
        assert float(value) == pytest.approx(distance, abs=6e-4)
        assert verdict == ("accepted" if distance <= 0.6 else "rejected")
        assert ("positive" if files.alike(a, b) else "negative") in next(
            one.value for one in app.markdown if "picked pair" in one.value
        )
        marks = [
            trace
            for chart in app.get("plotly_chart")
            for trace in json.loads(chart.proto.spec)["data"]
            if trace.get("name") == "picked pair"
        ]
        assert any(numbers(mark["x"])[0] == pytest.approx(distance, abs=1e-4) for mark in marks)
        app.button(key="unpick").click().run()
        assert "pair" not in app.query_params and not any("picked pair" in one.value for one in app.markdown)


def test_a_link_to_a_pair_that_is_not_in_the_gallery_says_so(open_page, with_digits: Path) -> None:
    evil = "![x](http://example.com/a.png)"
    app = open_page("similarity", run="digits", view="joint", pair=[evil, "nothing"])
    assert "isn't in this gallery" in texts(app)
    assert evil not in markdown(app)
    assert "The pair in this link is invalid" in texts(open_page("similarity", run="digits", view="joint", pair="one"))


def test_the_density_view_describes_its_tables(open_page, with_digits: Path) -> None:
    from shared import loaders

    from pddm_lab.analysis.thresholds import threshold_at_fpr

    app = open_page("similarity", run="digits", view="density", fpr="5", numbers="true")
    text = texts(app)
    tables = [str(one.value) for one in app.get("html") if "pl-thirds" in str(one.value)]
    assert len(tables) == 2
    for protocol, table in zip(("unseen", "known"), tables, strict=True):
        pairs = loaders.sampled_pairs(Run.open(with_digits / "digits"), protocol)
        shown = [float(text) for text in re.findall(r"<td>([\d.]+)<small>", table)]
        for place, name in enumerate(("euclidean", "pddm")):
            accepted = pairs[name] >= threshold_at_fpr(pairs, name, 0.05)
            for third in range(3):
                of = pairs["density"] == third
                tpr = 100 * accepted[of & pairs["positive"]].mean()
                fpr = 100 * accepted[of & ~pairs["positive"]].mean()
                assert shown[9 * place + 3 * third : 9 * place + 3 * third + 2] == pytest.approx([tpr, fpr], abs=0.051)
            sparse = 100 * accepted[(pairs["density"] == 2) & pairs["positive"]].mean()
            assert f"and {sparse:.1f} % in the sparse third" in text
    assert text.count("**Euclidean: ") == 2


@pytest.fixture
def with_two(with_digits: Path) -> Path:
    """A second run on the same items, whose similarities are others."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(with_digits / "digits", with_digits / "other")
    info = json.loads((with_digits / "other" / "run.json").read_text())
    (with_digits / "other" / "run.json").write_text(json.dumps(info | {"name": "other"}))
    weights = load_file(with_digits / "other" / "model.safetensors")
    save_file(
        {name: 2 * value if "learned." in name else value for name, value in weights.items()},
        with_digits / "other" / "model.safetensors",
    )
    return with_digits


def test_a_pair_picked_in_one_run_is_marked_in_the_other(open_page, with_two: Path) -> None:
    files = Files(with_two, "unseen")
    a, b = files.items["id"].iloc[0], files.items["id"].iloc[9]
    app = open_page(
        "similarity", run="digits", view="joint", **{"with": "other"}, pair=[a, b], left="pddm", right="mahalanobis"
    )
    charts = [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]
    marks = [[trace for trace in chart["data"] if trace.get("name") == "picked pair"] for chart in charts]
    assert len(marks) == 2 and all(len(mark) == 1 for mark in marks)
    distances = [numbers(mark[0]["y"])[0] for mark in marks]
    assert distances[1] == pytest.approx(2 * distances[0], rel=1e-4)
    facts = [str(one.value) for one in app.get("html") if "Run</dt>" in str(one.value)]
    assert len(facts) == 2
    verdicts = [re.findall(r"(accepted|rejected)", fact) for fact in facts]
    assert verdicts[0][-1] == verdicts[1][-1], "a threshold on the other run's scale"
    for view in ("thresholds", "density"):
        app = open_page("similarity", run="digits", view=view, **{"with": "other"})
        assert "other" in texts(app)


def test_without_a_model_the_distributions_stay(open_page, with_digits: Path) -> None:
    (with_digits / "digits" / "model.safetensors").unlink()
    app = open_page("similarity", run="digits")
    assert len(app.metric) == 12
    assert "The pairs can't be scored" in texts(app)
    assert "model.safetensors" in texts(app)


def test_one_similarity_twice_has_no_joint_plot(open_page, with_digits: Path) -> None:
    app = open_page("similarity", run="digits", view="joint", right="euclidean")
    assert "Choose two different similarities" in texts(app)
    app = open_page("similarity", run="digits", view="density", right="euclidean")
    assert not app.error


@pytest.mark.parametrize("view", ["thresholds", "joint", "density"])
def test_nonsense_in_a_link_opens_each_view_as_it_is_by_default(open_page, with_digits: Path, view: str) -> None:
    names = ["protocol", "with", "where", "around", "quadrant", "kind", "of", "page_y", "fpr", "curves", "pair"]
    app = open_page("similarity", run="digits", view=view, **dict.fromkeys(names, "99999"))
    assert not app.error
    assert app.get_by_key("view").value == view


def test_pairs_are_exported_as_they_are_shown(with_digits: Path) -> None:
    from app_pages.similarity.text import as_exported, with_items
    from shared import loaders

    run = Run.open(with_digits / "digits")
    table = as_exported(with_items(run.gallery("known"), loaders.sampled_pairs(run, "known").head(20)))
    names = ["item_a", "item_b", "class_a", "class_b", "positive", "density"]
    assert list(table) == [*names, "euclidean_distance", "cosine", "mahalanobis_distance", "pddm"]
    files = Files(with_digits, "known")
    for row in table.itertuples():
        assert row.euclidean_distance == pytest.approx(files.distance(row.item_a, row.item_b), abs=1e-5)
        assert row.positive == files.alike(row.item_a, row.item_b) == (row.class_a == row.class_b)


def without_cosine(folder: Path) -> None:
    """Make a gallery's files those of a lab that had no cosine."""
    frame = pd.read_parquet(folder / "distributions.parquet").query("similarity != 'cosine'")
    (folder / "distributions.parquet").unlink()  # other copies of the run share the file
    frame.to_parquet(folder / "distributions.parquet", index=False)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["pairs"].pop("cosine")
    manifest["files"]["distributions.parquet"] = fingerprint(folder / "distributions.parquet")
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(("page", "more"), [("similarity", {"with": "digits"}), ("similarity", {}), ("audit", {})])
def test_a_run_of_a_lab_with_fewer_similarities_shows_those_it_has(
    open_page, with_digits: Path, page: str, more: dict[str, str]
) -> None:
    shutil.copytree(with_digits / "digits", with_digits / "older", copy_function=link)
    for protocol in ("unseen", "known"):
        without_cosine(with_digits / "older" / "gallery" / protocol)
    app = open_page(page, run="older", left="cosine", **more)
    assert not app.error
    if page == "similarity":
        assert list(app.get_by_key("left").options) == ["Euclidean", "Mahalanobis", "PDDM"]
        assert "older was measured before this lab had Cosine. `pddm-lab gallery rebuild older`" in texts(app)
