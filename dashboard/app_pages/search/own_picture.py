"""Components to choose, drop or paste a picture, and to draw a crop on one and search with that part alone.

Inline components without a build step. Their input is checked here and by `pddm_lab.data.images.verify`.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable
from dataclasses import dataclass

import streamlit as st

from pddm_lab.data.images import FORMATS, SUFFIXES, UPLOAD_BYTES

Crop = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of a picture, as shares of its width and height."""
SMALLEST_SIDE = 0.02
"""Smallest side of a crop, as a share of the picture's."""


@dataclass(frozen=True)
class Own:
    """An uploaded picture."""

    name: str
    data: bytes


def read_crop(text: str) -> Crop | None:
    """The crop in a link; None if it is invalid."""
    try:
        left, top, right, bottom = (float(part) for part in text.split(","))
    except ValueError:
        return None
    sides = (right - left, bottom - top)
    inside = all(math.isfinite(edge) and 0 <= edge <= 1 for edge in (left, top, right, bottom))
    return (left, top, right, bottom) if inside and min(sides) >= SMALLEST_SIDE - 1e-9 else None


def write_crop(crop: Crop) -> str:
    """A crop as text for a link."""
    return ",".join(f"{edge:.3f}".rstrip("0").rstrip(".") for edge in crop)


def own_picture(key: str, on_picture: Callable[[Own], None], small: bool = False) -> None:
    """An area to choose or drop a picture; one can also be pasted anywhere on the page.

    Args:
        on_picture: called with the picture.
        small: one line instead of a large area.
    """

    def take() -> None:
        sent = st.session_state[key].picture
        if sent:
            try:
                data = base64.b64decode(sent["data"], validate=True)
            except binascii.Error:
                data = b""  # verification rejects it
            on_picture(Own(str(sent["name"]), data))

    options = {"most": UPLOAD_BYTES, "formats": ", ".join(FORMATS), "accept": ",".join(sorted(SUFFIXES))}
    _OWN(data=options | {"small": small}, key=key, on_picture_change=take)


def cropper(image: bytes, alt: str, crop: Crop | None, key: str, on_crop: Callable[[Crop | None], None]) -> None:
    """A picture on which a crop can be drawn, moved and cleared, by mouse, finger or keys.

    Args:
        image: JPEG.
        alt: description of the picture.
        crop: the current crop.
        on_crop: called with the new crop, or None if it was cleared.
    """

    def take() -> None:
        sent = st.session_state[key].crop
        if sent:
            on_crop(read_crop(sent["text"]))

    source = "data:image/jpeg;base64," + base64.b64encode(image).decode()
    _CROP(data={"source": source, "alt": alt, "crop": list(crop) if crop else None}, key=key, on_crop_change=take)


_OWN = st.components.v2.component(
    "pddm_lab_own_picture",
    html="""
<div class="zone" tabindex="0" role="button">
  <div class="lead">Drop a picture here, paste one with Ctrl+V, or click to choose</div>
  <div class="more"></div>
  <input type="file" hidden aria-hidden="true" tabindex="-1" />
</div>
<div class="message" role="alert"></div>
""",
    css="""
.zone { border: 1.5px dashed var(--st-border-color); border-radius: var(--st-base-radius); cursor: pointer;
  padding: 2.2rem 1rem; text-align: center; background: var(--st-secondary-background-color); font-size: 0.95rem; }
.zone:hover, .zone.over { border-color: var(--st-primary-color); }
.zone:focus-visible { outline: 2px solid var(--st-primary-color); outline-offset: 2px; }
.more { opacity: 0.7; font-size: 0.85rem; margin-top: 0.35rem; }
.small { padding: 0.4rem 0.5rem; font-size: 0.8rem; }
.small .more { display: none; }
.message { font-size: 0.85rem; color: var(--st-red-text-color); margin-top: 0.3rem; }
.message:empty { display: none; }
""",
    js="""
const listening = new WeakMap()

export default function (component) {
  const { data, parentElement, setTriggerValue } = component
  const zone = parentElement.querySelector(".zone")
  const input = zone.querySelector("input")
  const message = parentElement.querySelector(".message")
  zone.classList.toggle("small", data.small)
  zone.setAttribute("aria-label", zone.querySelector(".lead").textContent)
  zone.querySelector(".more").textContent =
    `${data.formats} of at most ${data.most / 1e6} MB. It stays on this machine.`
  if (data.small) zone.querySelector(".lead").textContent = "Drop or paste a picture"
  input.accept = data.accept

  const take = (file) => {
    message.textContent = ""
    if (!file) return
    if (file.size > data.most) {
      const size = Math.ceil(file.size / 1e6)
      message.textContent = `${file.name} has ${size} MB; expected a picture of at most ${data.most / 1e6} MB.`
      return
    }
    const reader = new FileReader()
    reader.onerror = () => { message.textContent = `${file.name} could not be read.` }
    reader.onload = () =>
      setTriggerValue("picture", { name: file.name || "pasted picture", data: reader.result.split(",")[1] ?? "" })
    reader.readAsDataURL(file)
  }
  zone.onclick = () => input.click()
  input.onclick = (event) => event.stopPropagation()
  zone.onkeydown = (event) => {
    if (event.key !== "Enter" && event.key !== " ") return
    event.preventDefault()
    input.click()
  }
  input.onchange = () => { take(input.files[0]); input.value = "" }
  zone.ondragover = (event) => { event.preventDefault(); zone.classList.add("over") }
  zone.ondragleave = () => zone.classList.remove("over")
  zone.ondrop = (event) => {
    event.preventDefault()
    zone.classList.remove("over")
    take(event.dataTransfer.files[0])
    if (!event.dataTransfer.files.length) message.textContent = "Not a file: save the picture, then drop it here."
  }
  const paste = (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"))
    if (file) {
      event.preventDefault()
      take(file)
    } else if (parentElement.activeElement === zone) message.textContent = "The clipboard contains no picture."
  }
  const stop = () => document.removeEventListener("paste", listening.get(zone))
  stop()
  listening.set(zone, paste)
  document.addEventListener("paste", paste)
  return stop
}
""",
)

_CROP = st.components.v2.component(
    "pddm_lab_crop",
    html="""
<div class="area" tabindex="0" role="group"><img draggable="false" /><div class="crop" hidden></div></div>
<div class="below"><span class="hint"></span><button type="button" hidden>Whole picture</button></div>
""",
    css="""
.area { position: relative; cursor: crosshair; touch-action: none; overflow: hidden; line-height: 0; user-select: none;
  border-radius: var(--st-base-radius); border: 1px solid var(--st-border-color); background: #fff; }
.area:focus-visible { outline: 2px solid var(--st-primary-color); outline-offset: 2px; }
.area { margin: 0 auto; }
.area img { width: 100%; height: auto; }
.crop { position: absolute; border: 2px solid #fff; outline: 1.5px solid #2F78D0; cursor: move; box-sizing: border-box;
  box-shadow: 0 0 0 2000px rgba(10, 14, 20, 0.55); }
.below { display: flex; justify-content: space-between; gap: 0.5rem; font-size: 0.78rem; margin-top: 0.3rem;
  line-height: 1.3; }
.hint { opacity: 0.7; }
button { font: inherit; color: var(--st-link-color); background: none; border: 0; padding: 0; cursor: pointer;
  white-space: nowrap; }
button:hover { text-decoration: underline; }
""",
    js="""
const SMALLEST = 0.02
const within = (value) => Math.min(Math.max(value, 0), 1)

export default function (component) {
  const { data, parentElement, setTriggerValue } = component
  const [area, image, frame, hint, clear] = [".area", "img", ".crop", ".hint", "button"]
    .map((name) => parentElement.querySelector(name))
  // Limit the height without bars at the sides, since a crop is a share of the picture itself.
  image.onload = () => {
    area.style.width = `min(100%, ${(20 * image.naturalWidth) / image.naturalHeight}rem)`
  }
  if (image.src !== data.source) image.src = data.source
  image.alt = data.alt
  area.setAttribute("aria-label", `${data.alt}. Draw a crop to search with a part of it: Enter starts one, ` +
    "the arrow keys move it, Shift + arrow keys resize it, Escape clears it.")
  let crop = data.crop
  let drag = null

  const show = () => {
    frame.hidden = clear.hidden = !crop
    hint.textContent = crop ? "Searching with this part." : "Drag to search with a part."
    if (!crop) return
    const [left, top, right, bottom] = crop.map((edge) => 100 * edge)
    Object.assign(frame.style, {
      left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%`,
    })
  }
  const send = () => {
    clearTimeout(area.later)
    setTriggerValue("crop", { text: crop ? crop.map((edge) => +edge.toFixed(3)).join(",") : "" })
  }
  const wipe = () => {
    crop = null
    show()
    send()
  }
  const moved = ([left, top, right, bottom], dx, dy) => {
    const x = Math.min(Math.max(dx, -left), 1 - right)
    const y = Math.min(Math.max(dy, -top), 1 - bottom)
    return [left + x, top + y, right + x, bottom + y]
  }
  const place = (event) => {
    const at = area.getBoundingClientRect()
    return [within((event.clientX - at.left) / at.width), within((event.clientY - at.top) / at.height)]
  }
  area.onpointerdown = (event) => {
    if (event.button) return
    const [x, y] = place(event)
    drag = { x, y, before: crop, moves: event.target === frame }
    try { area.setPointerCapture(event.pointerId) } catch { /* the pointer has already gone */ }
  }
  area.onpointermove = (event) => {
    if (!drag) return
    const [x, y] = place(event)
    if (drag.moves) crop = moved(drag.before, x - drag.x, y - drag.y)
    else crop = [Math.min(x, drag.x), Math.min(y, drag.y), Math.max(x, drag.x), Math.max(y, drag.y)]
    show()
  }
  area.onpointerup = area.onpointercancel = () => {
    if (!drag) return
    const { before } = drag
    drag = null
    if (!crop || crop[2] - crop[0] < SMALLEST || crop[3] - crop[1] < SMALLEST) crop = before // a click
    show()
    if (JSON.stringify(crop) !== JSON.stringify(before)) send()
  }
  area.onkeydown = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key]
    if (event.key === "Escape" && crop) wipe()
    else if (event.key === "Enter" && !crop) crop = [0.2, 0.2, 0.8, 0.8]
    else if (step && crop) {
      const [dx, dy] = step.map((one) => 0.03 * one)
      const [left, top, right, bottom] = crop
      if (!event.shiftKey) crop = moved(crop, dx, dy)
      else crop = [left, top, within(Math.max(right + dx, left + 0.06)), within(Math.max(bottom + dy, top + 0.06))]
    } else return
    event.preventDefault()
    event.stopPropagation()
    show()
    if (!crop) return
    clearTimeout(area.later)
    area.later = setTimeout(send, 350) // one search for several key presses
  }
  clear.onclick = wipe
  show()
  return () => clearTimeout(area.later)
}
""",
)
