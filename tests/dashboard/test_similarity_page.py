"""The Similarity page against the files of a real run."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from reading import texts


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


def test_sampled_pairs_carry_their_classes_scores_and_density(with_digits: Path) -> None:
    import loaders

    from pddm_lab.neighbourhoods import density_of, local_radius
    from pddm_lab.runs import Run

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
