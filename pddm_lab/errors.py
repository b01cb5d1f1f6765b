"""Errors a user can act on. Each message says what was expected, what came, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Collection


class LabError(Exception):
    """The base of the lab's own errors: the command line and the pages print its message without a traceback."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback: the sentence says what to do."""
        return [f"{type(self).__name__}: {self}"]


class ConfigError(LabError):
    """A choice that is unknown or out of range."""


class DataError(LabError):
    """A data set or an image that is missing, broken, or laid out otherwise than expected."""


class RunError(LabError):
    """A run or a gallery on disk that is missing, torn or foreign."""


def unknown_name(what: str, name: str, known: Collection[str]) -> str:
    """The message of an error about an unknown name: it suggests the closest known one, and lists all of them."""
    near = "".join(f" Did you mean {other!r}?" for other in difflib.get_close_matches(name, known, n=1))
    return f"Unknown {what} {name!r}.{near} Known: {', '.join(known)}."
