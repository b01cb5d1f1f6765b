"""Pictures that can be chosen by click or keyboard, as one element however many there are.

An inline component without a build step. The HTML comes from pddm_lab.cards, which escapes its input. Pointing at a
picture highlights the same item elsewhere on the page.
"""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st
from shared.shell import put_in_url

from pddm_lab.cards import Block

_PICTURES = st.components.v2.component(
    "pddm_lab_pictures",
    html='<div class="pictures"></div>',
    css=".pictures { --pl-page: var(--st-background-color); scroll-margin-top: 11rem; }",
    js="""
const SAME = "pddm-lab-pointed-at"
const listening = new WeakMap()

export default function (component) {
  const { data, parentElement, setTriggerValue } = component
  const root = parentElement.querySelector(".pictures")
  if (root.shown !== data.html) {
    root.innerHTML = data.html
    root.shown = data.html
  }
  if (data.reveal && root.revealed !== data.reveal) {
    const { top, bottom } = root.getBoundingClientRect()
    if (top < 60 || bottom > innerHeight) root.scrollIntoView({ behavior: "smooth", block: "start" })
  }
  root.revealed = data.reveal
  const tiles = () => [...root.querySelectorAll("[data-pick]")]
  root.onclick = (event) => {
    const why = event.target.closest("[data-why]")
    const tile = event.target.closest("[data-pick]")
    if (why) setTriggerValue("explained", why.dataset.why)
    else if (tile) setTriggerValue("picked", tile.dataset.pick)
  }
  root.onkeydown = (event) => {
    const tile = event.target.closest("[data-pick]")
    if (!tile || event.ctrlKey || event.metaKey || event.altKey) return
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key]
    const picks = event.key === "Enter" || event.key === " "
    const why = event.key.toLowerCase() === "w" && tile.querySelector("[data-why]")
    if (step) tiles()[tiles().indexOf(tile) + step]?.focus()
    if (picks) setTriggerValue("picked", tile.dataset.pick)
    if (why) setTriggerValue("explained", why.dataset.why)
    if (step || picks || why) {
      event.preventDefault()
      event.stopPropagation()
    }
  }
  const point = (item) => document.dispatchEvent(new CustomEvent(SAME, { detail: item }))
  root.onmouseover = root.onfocusin = (event) => point(event.target.closest("[data-pick]")?.dataset.pick)
  root.onmouseleave = root.onfocusout = () => point(null)
  const link = (event) =>
    tiles().forEach((tile) => tile.classList.toggle("pl-linked", tile.dataset.pick === event.detail))
  const forget = () => document.removeEventListener(SAME, listening.get(root))
  forget()
  listening.set(root, link)
  document.addEventListener(SAME, link)
  return forget
}
""",
)


def pictures(
    block: Block, key: str, on_why: Callable[[str], None] | None = None, reveal: str = "",
    on_pick: Callable[[str], None] | None = None,
) -> None:  # fmt: skip
    """Show a block of cards; choosing a picture makes its item the page's `item` in the URL.

    Args:
        on_why: called with the id of an item when its "why?" is clicked, or W is pressed on it.
        reveal: when this changes, the page scrolls to the block unless all of it is in view.
        on_pick: called with the chosen picture instead.
    """

    def pick() -> None:
        if picked := st.session_state[key].picked:
            (on_pick or show_item)(picked)

    def explain() -> None:
        if on_why and (item := st.session_state[key].explained):
            on_why(item)

    _PICTURES(data={"html": str(block), "reveal": reveal}, key=key, on_picked_change=pick, on_explained_change=explain)


def show_item(item: str) -> None:
    """Make an item the page's own, and clear the choices made for another."""
    put_in_url(item=item, query="", crop="", why="")
