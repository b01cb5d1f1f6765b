"""Pictures that can be clicked, or reached with Tab and chosen with Enter: one element however many there are.

An inline component without a build step. The HTML comes from pddm_lab.cards, which escapes all it is given. Pointing at
a picture brings out the same item wherever else on the page it is shown.
"""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from pddm_lab.cards import Block

_PICTURES = st.components.v2.component(
    "pddm_lab_pictures",
    html='<div class="pictures"></div>',
    css="""
.pictures { --pl-page: var(--st-background-color); scroll-margin-top: 11rem; }
""",
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
    if (why) setTriggerValue("asked", why.dataset.why)
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
    if (why) setTriggerValue("asked", why.dataset.why)
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
    block: Block,
    key: str,
    on_why: Callable[[str], None] | None = None,
    reveal: str = "",
    on_pick: Callable[[str], None] | None = None,
) -> None:
    """Show a block of cards; choosing a picture makes its item the page's `item` in the URL.

    Args:
        on_pick: called with what was chosen, instead.
        on_why: called with the id of an item when its "why?" is clicked, or W is pressed on it.
        reveal: where this changed since the block was shown last, the page scrolls to it, unless all of it is in view.
    """

    def keep() -> None:
        picked = st.session_state[key].picked
        if picked:
            (on_pick or show_item)(picked)

    def ask() -> None:
        if on_why and st.session_state[key].asked:
            on_why(st.session_state[key].asked)

    _PICTURES(data={"html": str(block), "reveal": reveal}, key=key, on_picked_change=keep, on_asked_change=ask)


def show_item(item: str) -> None:
    """Make an item the page's own; what was chosen about another goes with it."""
    st.query_params["item"] = item
    for of_another in ("query", "crop", "why"):  # an upload, and what a box or a question was about
        st.query_params.pop(of_another, None)
