"""Numbers with their nouns, and the order of names, as people write them."""

from __future__ import annotations

import re


def counted(number: int, one: str, many: str = "") -> str:
    """A number of things: 1 class, 2 classes."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts names as people do: class 2 before class 10."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(int(part[:18]), "") if part.isdecimal() else (-1, part) for part in parts]
