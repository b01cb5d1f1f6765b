"""A run made elsewhere: its texts are shown as they are written, and fetch and link nothing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from foreign_run import BAIT, HOST, NAME, foreign_run
from reading import PAGES, texts
from shared.plain_text import command, plain

MARKDOWN = {"body", "label", "help", "title", "text", "content", "caption", "options", "captions"}
"""Fields of Streamlit's elements that a browser shows as Markdown (or, of `options`, may)."""
DANGER = re.compile(r"(?<!\\)!\[|(?<!\\)\[[^\]]*\]\(|(?<!\\)<|https?\\?://|www\.|\w@evil")
VIEWS: dict[str, list[dict[str, str]]] = {
    "runs": [{}], "similarity": [{}, {"view": "joint"}, {"view": "density"}],
    "quadruplets": [{}, {"view": "training"}, {"view": "confusion"}, {"view": "suspects"}],
    "search": [{"view": "flow"}, {"view": "why"}, {"view": "ceiling"}], "map": [{}, {"colour": "anchor"}],
    "local_global": [{}], "audit": [{"view": "licences"}, {"view": "duplicates"}], "drift": [{}],
    "robustness": [{}], "overview": [{}], "catalogue": [{}],
}  # fmt: skip


def nodes(app: Any) -> Iterator[Any]:
    """Every element and container of a page."""
    left = [app._tree]
    while left:
        children = getattr(left.pop(), "children", {}).values()
        yield from (child for child in children if getattr(child, "proto", None) is not None)
        left += children


def markdown(message: Any) -> Iterator[str]:
    """The texts of an element that are shown as Markdown."""
    for field, value in message.ListFields():
        values: Any = value if hasattr(value, "extend") else [value]
        for one in values:
            if isinstance(one, str) and field.name in MARKDOWN:
                yield one
            elif hasattr(one, "ListFields"):
                yield from markdown(one)


def dangers(app: Any) -> list[str]:
    """Texts with a picture, a link or an address that a browser would follow; code is shown as it is."""
    plain_kinds = ("code", "html", "selectbox", "multiselect", "bidi_component", "arrow_data_frame", "plotly_chart")
    protos = [node.proto for node in nodes(app) if node.type not in plain_kinds and node.proto]
    shown = [text for proto in protos for text in markdown(proto)]
    return [text for text in shown if dangerous(text)]


def dangerous(text: str) -> bool:
    """Whether a browser would make a picture or a link of a part of a text that isn't code."""
    return bool(DANGER.search(re.sub(r"(``?)(?!`)[^\n]+?\1", "", text.replace("\\`", ""))))


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("status", ["finished", pytest.param("failed", marks=pytest.mark.slow)])
def test_no_page_makes_a_picture_or_a_link_of_a_foreign_text(
    open_page, runs_folder: Path, digits_run, page: str, status: str
) -> None:
    foreign_run(digits_run.path, runs_folder, status)
    for view in VIEWS[page] if status == "finished" else VIEWS[page][:1]:
        app = open_page(page, run=NAME, **view)
        assert not dangers(app)
        assert page == "local_global" or HOST in texts(app), "the text itself is shown"
        assert not [one.value for one in app.warning if "link" in one.value and page != "runs"], "the run is opened"


def test_a_text_is_shown_as_it_is_written() -> None:
    text = "a *b* _c_ 1 < 2, `pddm-lab runs` [d](e) :red[x] $y$"
    shown = re.sub(r"\\(\W|_)", r"\1", plain(text))
    assert shown == text
    assert "`pddm-lab runs`" in plain("Run `pddm-lab runs`."), "a command stays code"
    assert dangerous(BAIT) and not dangerous(plain(BAIT))


@pytest.mark.parametrize("name", ["a b", "50%+#1", "it's", "a`b", "$HOME"])
def test_a_command_works_with_any_name(name: str) -> None:
    code = command("resume", name)
    assert shlex.split(code.strip("`")) == ["pddm-lab", "resume", name]


@pytest.mark.parametrize("page", ["map", "similarity"])
def test_a_link_keeps_any_name(open_page, runs_folder: Path, digits_run, page: str) -> None:
    foreign_run(digits_run.path, runs_folder)
    ids = digits_run.gallery("unseen").items["id"]
    app = open_page(page, run=NAME, item=ids[3], pair=ids[:2].tolist())
    links = [node.proto.query_string for node in nodes(app) if node.type == "page_link"]
    assert links and all(parse_qs(link)["run"] == [NAME] for link in links)
