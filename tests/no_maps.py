"""In place of the process that draws a run's maps, which takes longer than a short training."""

from pathlib import Path

from pddm_lab.errors import RunError


class NoMaps:
    """Draws nothing. The run says so, and is finished all the same."""

    def add(self, folder: Path) -> None: ...

    def wait(self) -> None:
        raise RunError("No maps here.")
