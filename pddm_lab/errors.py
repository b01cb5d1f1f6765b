"""Errors a user can act on. Each message says what was expected, what was found, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Collection


class LabError(Exception):
    """Base of the lab's errors: the command line and the pages show its message without a traceback."""

    def __str__(self) -> str:
        return valid_text(super().__str__())

    def _render_traceback_(self) -> list[str]:
        """The text that IPython shows instead of a traceback."""
        return [f"{type(self).__name__}: {self}"]


class ConfigError(LabError):
    """An option that is unknown or out of range."""


class DataError(LabError):
    """A data set or an image that is missing, damaged, or has another layout than expected."""


class RunError(LabError):
    """A run or a gallery on disk that is missing, damaged, or not written by this lab."""


class OptionError(RunError):
    """A command lacks an option: the command line shows it as it was typed, with the option.

    Args:
        message: what is to be done, without a full stop.
        option: as it is typed, such as "--model MODEL".
    """

    def __init__(self, message: str, option: str) -> None:
        super().__init__(message, option)  # both, so that it passes between processes
        self.message, self.option = valid_text(message), option

    def __str__(self) -> str:
        return valid_text(f"{self.message}, with `{self.option}`.")


class BusyError(RunError):
    """Files that another process is changing: the same works when that has finished."""


def valid_text(text: str) -> str:
    """A text that can be written anywhere: a file's name may hold bytes that are no text, shown as "?"."""
    return text.encode(errors="replace").decode()


def unknown_name(what: str, name: str, known: Collection[str]) -> str:
    """The message of an error about an unknown name: it suggests the closest known one, and lists all of them."""
    near = "".join(f" Did you mean {other!r}?" for other in difflib.get_close_matches(name, known, n=1))
    return f"Unknown {what} {name!r}.{near} Known: {', '.join(known)}."
