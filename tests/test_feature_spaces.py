"""Feature spaces of a gallery take pictures from the data set's root only."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
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
    gallery: Any = SimpleNamespace(items=items, pictures=None, features=np.zeros((1, 2), np.float32))
    assert [space.name for space in feature_spaces.gallery_spaces(run, gallery)] == ["foreign"]


def test_added_and_replaced_items_have_the_pretrained_features_of_their_own_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / "root" / "a.png", tmp_path / "new" / "b.png", tmp_path / "new" / "c.png"]
    for file in (*files, tmp_path / "root" / "b.png"):
        file.parent.mkdir(exist_ok=True)
        file.touch()
    read: list[list[Path]] = []

    def pretrained_space(config: object, paths: list[Path], progress: object) -> feature_spaces.Space:
        read.append(paths)
        return feature_spaces.Space("pretrained", torch.zeros(len(paths), 2), {})

    monkeypatch.setattr(feature_spaces, "load_similarities", lambda _run: {})
    monkeypatch.setattr(feature_spaces, "pretrained_space", pretrained_space)
    config = SimpleNamespace(is_imported=False)
    run: Any = SimpleNamespace(name="own", config=config, info={"dataset": {"root": str(tmp_path / "root")}})
    items, pictures = pd.DataFrame({"id": ["a.png", "b.png", "c.png"]}), pd.Series([None, *map(str, files[1:])])
    gallery: Any = SimpleNamespace(items=items, pictures=pictures, features=np.zeros((3, 2), np.float32))
    assert [space.name for space in feature_spaces.gallery_spaces(run, gallery)] == ["pretrained", "own"]
    assert read == [files]
    files[2].unlink()
    assert [space.name for space in feature_spaces.gallery_spaces(run, gallery)] == ["own"]
