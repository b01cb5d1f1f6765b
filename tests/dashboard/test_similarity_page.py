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
