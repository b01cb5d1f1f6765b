"""In place of the process that draws a run's maps, which takes longer than a short training."""

from pathlib import Path

import pytest

from pddm_lab.errors import RunError
from pddm_lab.gallery import umap_layout


class NoMaps:
    """Draws nothing. The run says so, and is finished all the same."""

    def add(self, folder: Path) -> None: ...

    def wait(self) -> None:
        raise RunError("No maps here.")


class SimpleMaps:
    """Draws the ranks in the first two dimensions, where UMAP would be called: spread evenly, and at once."""

    def add(self, folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(umap_layout, "_umap", lambda features, *_: features[:, :2].argsort(0).argsort(0) / 10)
            umap_layout.write_map(folder)

    def wait(self) -> None: ...
