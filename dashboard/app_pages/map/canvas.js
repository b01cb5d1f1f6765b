// One or two maps on canvases: zoom, pan, lasso, hover and pick, by pointer and by keys.
// Follows points.js, views.js, layers.js and panel.js in one module. Choices are sent to Python as text; its responses
// are in `data`.

const MAPS = new WeakMap()
const POINTED_AT = "pddm-lab-pointed-at"
const HOVER_DELAY = 60, VIEW_DELAY = 450, PICTURE_DELAY = 250 // milliseconds
const MOST_WANTED = 150 // pictures at a time
const MOST_KEPT = 2000 // pictures
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }

class MapView {
  constructor(root) {
    this.root = root
    this.box = root.querySelector(".map")
    this.tip = this.box.querySelector(".tip")
    this.spoken = this.box.querySelector(".spoken")
    Object.assign(this, { panels: [], hover: -1, other: -1, picked: -1, descriptions: new Map(), views: [null, null] })
    Object.assign(this, { pictures: new Map(), wanted: [] })
    Object.assign(this, { linkedView: new LinkedText(), linkedLasso: new LinkedText() })
    const one = () => this.pointing ?? this.panels[0]
    const act = {
      lasso: () => this.setLassoing(!this.lassoing), in: () => one().zoom(0.6), out: () => one().zoom(1 / 0.6),
      fit: () => this.panels.forEach((panel) => this.look(panel, null)), view: () => this.selectView(one()),
      clear: () => this.clear(),
    }
    for (const button of this.box.querySelectorAll("[data-do]")) button.onclick = act[button.dataset.do]
    this.watch = new ResizeObserver(() => this.draw())
    this.watch.observe(this.box)
    // Pointing at a picture elsewhere on the page marks its item here: picture_grid.py sends the event.
    this.elsewhere = ({ detail }) => {
      this.other = this.data?.shown[detail] ?? -1
      this.drawMarks()
    }
    document.addEventListener(POINTED_AT, this.elsewhere)
  }

  end() {
    this.watch.disconnect()
    document.removeEventListener(POINTED_AT, this.elsewhere)
    clearTimeout(this.hoverTimer)
    clearTimeout(this.viewTimer)
    clearTimeout(this.pictureTimer)
    MAPS.delete(this.root)
  }

  update(data, send) {
    const style = getComputedStyle(this.box), colour = (name, other) => style.getPropertyValue(name).trim() || other
    const colours = { text: colour("--st-text-color", "#1C2530"), background: colour("--st-background-color", "#FFFFFF") }
    const another = this.data?.scope !== data.scope
    const layers = this.data?.layers.join() !== data.layers.join()
    if (this.data?.stock !== data.stock) this.pictures = new Map()
    let stale = another || layers || colours.background !== this.colours?.background || this.panels.length !== data.panels.length
    if (another) Object.assign(this, { hover: -1, other: -1, picked: -1, linkedView: new LinkedText(), linkedLasso: new LinkedText() })
    if (this.picked === data.anchor || Date.now() > this.pickedBy) this.picked = -1
    if (another || this.data?.context !== data.context) this.descriptions = new Map()
    Object.assign(this, { data, send, colours })
    if (data.description) this.descriptions.set(data.description.row, data.description)
    fetched(data.names, (response) => response.json()).then((names) => {
      if (this.names === names) return
      this.names = names
      this.draw()
    }).catch(() => {})
    fetched(data.labels, array(Uint32Array)).then((labels) => { this.labels = labels }).catch(() => {})
    if (data.pictures) this.receive(data.pictures, data.stock)
    while (this.panels.length > data.panels.length) {
      this.panels.pop().box.remove()
      this.pointing = null
    }
    while (this.panels.length < data.panels.length) {
      this.panels.push(new Panel(this, this.panels.length))
      this.box.querySelector(".panels").append(this.panels[this.panels.length - 1].box)
    }
    if (another || this.linkedView.changed(data.view)) {
      this.linkedView.text = data.view
      this.views = data.view.split("_").map(readView)
      stale = true
    }
    if (another || this.linkedLasso.changed(data.lasso)) {
      this.linkedLasso.text = data.lasso
      this.lasso = readLasso(data.lasso)
      this.select()
      stale = true
    }
    data.panels.forEach((spec, at) => this.panels[at].show(spec))
    stale ? this.draw() : this.drawMarks() // a description changes no point
    this.showTip()
  }

  // Send all choices every time: of two messages that wait for the server, the first may be lost, and each carries the
  // URL of the moment when it was sent.
  sendState() {
    const { hover, picked, linkedLasso, linkedView, wanted } = this
    this.send({ hovered: hover, picked, lasso: linkedLasso.text, view: linkedView.text, wanted, at: Date.now() })
  }

  // Request the pictures that are to be shown and aren't here.
  want() {
    const rows = new Set(this.panels.flatMap((panel) => panel.tiles.map((tile) => tile.row)))
    this.wanted = [...rows].filter((row) => !this.pictures.has(row)).slice(0, MOST_WANTED)
    clearTimeout(this.pictureTimer)
    if (this.wanted.length) this.pictureTimer = setTimeout(() => this.sendState(), PICTURE_DELAY)
  }

  // JPEGs end to end; the rows whose they are, and where each ends.
  async receive({ address, rows, ends }, stock) {
    if (rows.every((row) => this.pictures.has(row))) return
    try {
      const bytes = await fetched(address, (response) => response.arrayBuffer())
      const made = await Promise.all(rows.map((_, at) => createImageBitmap(new Blob([bytes.slice(ends[at - 1] || 0, ends[at])]))))
      if (this.data.stock !== stock) return
      rows.forEach((row, at) => this.pictures.set(row, made[at]))
      for (const row of this.pictures.keys()) if (this.pictures.size > MOST_KEPT) this.pictures.delete(row)
      this.draw()
    } catch { /* the points remain points */ }
  }

  draw() {
    cancelAnimationFrame(this.frame)
    this.frame = requestAnimationFrame(() => this.panels.forEach((panel) => panel.draw()))
  }

  drawMarks() {
    this.panels.forEach((panel) => panel.drawMarks())
  }

  viewOf(panel) {
    return this.views[this.data.linked ? 0 : panel.number] || null
  }

  // Move a map, and the other one if they share a layout; null shows all items.
  look(panel, view) {
    this.views[this.data.linked ? 0 : panel.number] = view
    this.draw()
    clearTimeout(this.viewTimer)
    this.viewTimer = setTimeout(() => {
      const text = this.views.some(Boolean) ? this.views.map(writeView).join("_") : ""
      if (text === this.linkedView.text) return
      this.linkedView.choose(text)
      this.sendState()
    }, VIEW_DELAY)
    this.showTip()
  }

  select() {
    const panel = this.lasso && this.panels[this.lasso.panel]
    this.selected = panel?.points ? panel.points.inside(this.lasso.corners) : null
  }

  // Close a lasso, and send its line to Python, simplified to a tolerance of a pixel and a half or more.
  close(panel, pixels) {
    let tolerance = 1, line = pixels
    do line = simplified(pixels, (tolerance *= 1.5))
    while (line.length > 120)
    this.setLassoing(false)
    if (line.length < 3) return
    const within = (value) => Math.round(Math.min(Math.max(value, -FURTHEST), GRID + FURTHEST))
    this.choose({ panel: panel.number, corners: line.map(([px, py]) => panel.lens.place(px, py).map(within)) })
  }

  choose(lasso) {
    this.lasso = lasso
    this.select()
    this.draw()
    this.linkedLasso.choose(lasso ? writeLasso(lasso) : "")
    this.sendState()
  }

  selectView(panel) {
    const { clientWidth: width, clientHeight: height } = panel.stage
    this.close(panel, [[0, 0], [width, 0], [width, height], [0, height]])
  }

  clear() {
    this.point(this.panels[0], -1)
    this.setLassoing(false)
    if (this.lasso) this.choose(null)
  }

  setLassoing(on) {
    this.lassoing = on
    this.box.classList.toggle("lassoing", on)
    this.box.querySelector("[data-do=lasso]").setAttribute("aria-pressed", on)
  }

  pick(row) {
    if (row < 0) return
    Object.assign(this, { picked: row, pickedBy: Date.now() + PATIENCE })
    this.sendState()
  }

  // Point at an item: show its class at once, and after a delay request its description from Python.
  point(panel, row, delay = HOVER_DELAY) {
    if (row === this.hover && panel === this.pointing) return
    Object.assign(this, { hover: row, pointing: panel })
    panel.stage.classList.toggle("over", row >= 0)
    this.drawMarks()
    this.showTip()
    clearTimeout(this.hoverTimer)
    if (row >= 0 && !this.descriptions.has(row)) {
      this.hoverTimer = setTimeout(() => { if (this.hover === row) this.sendState() }, delay)
    }
  }

  showTip() {
    const { hover: row, pointing: panel, tip } = this
    tip.hidden = !(row >= 0 && panel?.points)
    if (tip.hidden) return
    const description = this.descriptions.get(row), name = this.names?.[this.labels?.[row]] ?? ""
    const parts = [element("b", "", name)]
    if (description) {
      const picture = Object.assign(element("img", ""), { src: description.picture, alt: `${name}, ${description.id}` })
      parts.unshift(picture)
      parts.push(...description.lines.map((line) => element("span", "", line)))
      if (this.byKey) this.spoken.textContent = [name, ...description.lines].join(", ")
    } else parts.unshift(element("span", "wait"))
    tip.dataset.row = description ? row : ""
    tip.replaceChildren(...parts)
    const [px, py] = panel.pixelOf(row)
    const [stage, box] = [panel.stage.getBoundingClientRect(), this.box.getBoundingClientRect()]
    const x = stage.left - box.left + px, y = stage.top - box.top + py
    tip.style.left = `${x + 16 + tip.offsetWidth > box.width ? x - 16 - tip.offsetWidth : x + 16}px`
    tip.style.top = `${Math.max(Math.min(y - 20, box.height - tip.offsetHeight), 0)}px`
  }

  // Returns whether the key has a function here.
  key(panel, key) {
    this.byKey = true
    const around = this.hover >= 0 ? panel.pixelOf(this.hover) : undefined
    if (key in STEPS) this.step(panel, ...STEPS[key])
    else if (key === "Enter" || key === " ") this.pick(this.hover)
    else if (key === "+" || key === "=") panel.zoom(0.8, around)
    else if (key === "-") panel.zoom(1 / 0.8, around)
    else if (key === "0") this.look(panel, null)
    else if (key === "l") this.setLassoing(!this.lassoing)
    else if (key === "v") this.selectView(panel)
    else if (key === "Escape") this.clear()
    else return false
    return true
  }

  step(panel, dx, dy) {
    const lens = panel.lens
    const from = this.hover >= 0 ? this.hover : this.data.anchor
    const row = from >= 0 ? panel.points.toward(from, dx, dy) : panel.points.nearest(lens.x, lens.y, 4 * GRID)
    if (row < 0) return
    const [px, py] = panel.pixelOf(row), [x, y] = [panel.points.places[2 * row], panel.points.places[2 * row + 1]]
    if (px < 20 || py < 20 || px > lens.width - 20 || py > lens.height - 20) this.look(panel, { x, y, span: lens.span })
    this.point(panel, row)
  }
}

export default function (component) {
  const { data, parentElement, setStateValue } = component
  if (!MAPS.has(parentElement)) MAPS.set(parentElement, new MapView(parentElement))
  const map = MAPS.get(parentElement)
  map.update(data, (now) => setStateValue("now", now))
  return () => map.end()
}
