"""Feature spaces of a gallery take pictures from the data set's root only."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pddm_lab.applications import feature_spaces


@pytest.mark.parametrize("name", ["../outside.png", "a/../../outside.png", "{folder}/outside.png"])
def test_ids_never_leave_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "root" / "a").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "outside.png")
    monkeypatch.setattr(feature_spaces, "load_similarities", lambda _run: {})
    monkeypatch.setattr(feature_spaces, "pretrained_space", lambda *_: pytest.fail("a picture outside was read"))
    run: Any = SimpleNamespace(name="foreign", config=None, info={"dataset": {"root": str(tmp_path / "root")}})
    items = pd.DataFrame({"id": [name.format(folder=tmp_path)]})
    gallery: Any = SimpleNamespace(items=items, features=np.zeros((1, 2), np.float32))
    assert [space.name for space in feature_spaces.gallery_spaces(run, gallery)] == ["foreign"]
