"""Pictures that can be clicked, or reached with Tab and chosen with Enter: one element however many there are.

An inline component without a build step. The HTML comes from pddm_lab.cards, which escapes all it is given.
"""

from __future__ import annotations

import streamlit as st

from pddm_lab.cards import Block

_PICTURES = st.components.v2.component(
    "pddm_lab_pictures",
    html='<div class="pictures"></div>',
    js="""
export default function (component) {
  const { data, parentElement, setTriggerValue } = component
  const root = parentElement.querySelector(".pictures")
  if (root.shown !== data.html) {
    root.innerHTML = data.html
    root.shown = data.html
  }
  const tiles = () => [...root.querySelectorAll("[data-pick]")]
  root.onclick = (event) => {
    const tile = event.target.closest("[data-pick]")
    if (tile) setTriggerValue("picked", tile.dataset.pick)
  }
  root.onkeydown = (event) => {
    const tile = event.target.closest("[data-pick]")
    if (!tile) return
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key]
    if (step) tiles()[tiles().indexOf(tile) + step]?.focus()
    if (event.key === "Enter" || event.key === " ") setTriggerValue("picked", tile.dataset.pick)
    if (step || event.key === "Enter" || event.key === " ") {
      event.preventDefault()
      event.stopPropagation()
    }
  }
}
""",
)


def pictures(block: Block, key: str) -> None:
    """Show a block of cards; choosing a picture makes its item the page's `item` in the URL."""

    def keep() -> None:
        picked = st.session_state[key].picked
        if picked:
            st.query_params["item"] = picked
            st.query_params.pop("query", None)  # from an upload back to an item

    _PICTURES(data={"html": str(block)}, key=key, on_picked_change=keep)
