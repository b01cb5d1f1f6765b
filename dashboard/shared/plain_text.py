"""Text that the dashboard did not write (from runs, galleries, logs, links, uploads), made safe for Markdown."""

from __future__ import annotations

import re
import shlex

_CODE = re.compile(r"(`[^`\n]+`)")
_MARK = re.compile(r"([\\`*_\[\]<>{}#!|~$:&^]|^[-+=])", re.MULTILINE)
"""What starts a format of Markdown, or one of Streamlit's own."""
_ADDRESS = re.compile(r"(?=://|@)|(?<=www)(?=\.)", re.IGNORECASE)


def plain(text: object) -> str:
    """Text as it is written: no picture that a browser would fetch, no link, no formatting except `code`.

    An invisible word joiner keeps Markdown from making a link of a bare address, which escaping its marks doesn't.
    """
    parts = _CODE.split(str(text))
    parts[::2] = (_MARK.sub(r"\\\1", _ADDRESS.sub("\u2060", part)) for part in parts[::2])
    return "".join(parts)


def command(*words: str) -> str:
    """A command of the lab as code, quoted for a shell where a word needs it."""
    text = shlex.join(["pddm-lab", *words])
    fence = "`" if "`" not in text else "``"
    return f"{fence}{text}{fence}"
