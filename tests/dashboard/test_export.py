"""An exported table reads back unchanged, with a manifest of its run, data and settings."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pandas as pd
import pytest
from shared.export import KINDS, packed

from pddm_lab.errors import ConfigError

TABLE = pd.DataFrame({"id": ["a/1.png", "ä/2.png"], "distance": [0.25, np.nan], "rank": [1, 2]}, index=[7, 3])
READERS = {"csv": pd.read_csv, "json": pd.read_json, "parquet": pd.read_parquet}


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_reads_back(digits_run, kind: str) -> None:
    archive = zipfile.ZipFile(io.BytesIO(packed("results", TABLE, kind, digits_run, {"protocol": "unseen"})))
    assert archive.namelist() == [f"results.{kind}", "manifest.json"]
    back = READERS[kind](io.BytesIO(archive.read(f"results.{kind}")))
    pd.testing.assert_frame_equal(back, TABLE.reset_index(drop=True), check_dtype=False)
    manifest = json.loads(archive.read("manifest.json"))
    assert manifest["rows"] == 2 and manifest["columns"] == ["id", "distance", "rank"]
    assert manifest["settings"] == {"protocol": "unseen"}
    assert manifest["runs"][0]["name"] == digits_run.name
    assert manifest["runs"][0]["notes"] == digits_run.notes
    assert manifest["runs"][0]["config"] == digits_run.config.to_dict()
    assert manifest["runs"][0]["data"]["fingerprint"] == digits_run.info["dataset"]["fingerprint"]


def test_an_unknown_format_is_refused(digits_run) -> None:
    with pytest.raises(ConfigError, match="csv, json, parquet"):
        packed("results", TABLE, "xlsx", digits_run, {})


def test_a_spreadsheet_runs_no_text_of_a_csv_as_a_formula(digits_run) -> None:
    texts = ["=1+1", "+1", "-a.png", "@SUM(A1)", "\t=1", "\r=1", "a=1", None]
    table = pd.DataFrame(
        {"id": texts, "=name": pd.Categorical(texts[:4] * 2), "change": [-1.5] * 8, "right": [True] * 8}
    )
    archive = zipfile.ZipFile(io.BytesIO(packed("results", table, "csv", digits_run, {})))
    with archive.open("results.csv") as file:
        back = pd.read_csv(io.TextIOWrapper(file, newline=""), lineterminator="\n")
    assert list(back) == ["id", "'=name", "change", "right"]
    assert back["id"].tolist()[:-1] == [f"'{text}" for text in texts[:6]] + ["a=1"]
    assert back["'=name"].str.startswith("'").all()
    assert (back["change"] == -1.5).all() and back["right"].all(), "numbers stay numbers"
