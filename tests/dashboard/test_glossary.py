"""Each word of the pages is defined once, and shown with its meaning."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from shared import glossary

from pddm_lab.files import shipped
from pddm_lab.wording import counted, natural

PAGES = sorted(shipped("dashboard/app.py").parent.glob("app_pages/*/page.py"))


def test_a_page_shows_its_words_with_their_meanings() -> None:
    text = glossary.lead("What <is> it?", ("S", "D_M"))
    assert "What &lt;is&gt; it?" in text and re.findall(r'tabindex="0">(.*?)<span class', text) == [
        "S",
        "D<sub>M</sub>",
    ]
    for term in ("S", "D_M"):
        assert f'role="tooltip">{glossary.TERMS[term]}</span>' in text
    assert "Words" not in glossary.lead("What is it?", ())
    assert 'href="#pl-results"' in glossary.lead("What is it?", (), results=True) and "pl-skip" not in text
    assert glossary.meaning("unseen", "known").startswith("Unseen: Classes that were not trained on")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_every_page_names_words_that_are_defined(page: Path) -> None:
    named = [
        word.value
        for call in ast.walk(ast.parse(page.read_text(encoding="utf-8")))
        if isinstance(call, ast.keyword) and call.arg == "words" and isinstance(call.value, ast.Tuple)
        for word in call.value.elts
        if isinstance(word, ast.Constant)
    ]
    assert set(named) <= set(glossary.TERMS) and len(named) == len(set(named))


def test_counts_and_orders_as_people_write_them() -> None:
    assert [counted(number, "class", "classes") for number in (1, 2, 1200)] == ["1 class", "2 classes", "1,200 classes"]
    assert counted(0, "item") == "0 items"
    assert sorted(["b", "a10", "A2", "10", "9", "a²"], key=natural) == ["9", "10", "A2", "a10", "a²", "b"]
