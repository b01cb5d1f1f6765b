// One or two maps on canvases: zoom, pan, lasso, hover and pick, by pointer and by keys.
// Follows points.js and views.js in one module. Choices are sent to Python as text; its responses are in `data`.

const MAPS = new WeakMap()
const POINTED_AT = "pddm-lab-pointed-at"
const HOVER_DELAY = 60, VIEW_DELAY = 450 // milliseconds
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }

class Panel {
  constructor(map, number) {
    Object.assign(this, { map, number, view: null, drawn: 0 })
    this.box = element("figure", "panel")
    this.head = this.box.appendChild(element("figcaption", "head"))
    this.stage = this.box.appendChild(element("div", "stage"))
    Object.assign(this.stage, { tabIndex: 0 })
    this.stage.setAttribute("role", "application")
    this.stage.setAttribute("aria-roledescription", "map")
    this.base = this.stage.appendChild(element("canvas", "points"))
    this.marks = this.stage.appendChild(element("canvas", "marks"))
    this.note = this.stage.appendChild(element("div", "note", "Drawing"))
    this.listen()
  }

  async fill(spec) {
    const [places, codes] = await Promise.all([
      fetched(spec.places, array(Uint16Array)), fetched(spec.codes, array(Uint8Array)),
    ])
    if (this.spec !== spec) return // a newer spec is loading
    if (this.places !== places) {
      [this.places, this.points] = [places, new Points(places)]
      this.map.select()
    }
    this.look = new Look(codes, spec)
    this.map.draw()
  }

  show(spec) {
    if (JSON.stringify(spec) === JSON.stringify(this.spec)) return
    this.spec = spec
    this.head.replaceChildren(element("b", "", spec.title), legend(spec))
    this.stage.setAttribute("aria-label", spec.alt)
    this.fill(spec).catch(() => { this.note.textContent = "The points could not be loaded. Reload the page." })
  }

  size() {
    const { clientWidth, clientHeight } = this.stage, ratio = window.devicePixelRatio || 1
    for (const canvas of [this.base, this.marks]) {
      const [width, height] = [Math.round(clientWidth * ratio), Math.round(clientHeight * ratio)]
      if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height })
    }
    return [clientWidth, clientHeight, ratio]
  }

  get lens() {
    const [width, height] = [this.stage.clientWidth || 1, this.stage.clientHeight || 1]
    return new Lens(this.map.viewOf(this) || Lens.fit(this.points.bounds, width, height), width, height)
  }

  draw() {
    const [width, height, ratio] = this.size()
    if (!this.points || !width || !height) return
    const { colours, selected } = this.map, lens = this.lens
    const visible = drawPoints(this.base, ratio, this.points, this.look, lens, selected, colours.background)
    this.stage.dataset.view = [lens.x, lens.y, lens.span].join(" ") // read by tests
    this.stage.dataset.drawn = this.points.count
    this.note.textContent = visible < this.points.count ? `${visible.toLocaleString("en")} in view` : ""
    this.drawMarks()
  }

  drawMarks() {
    if (!this.points) return
    const pen = this.marks.getContext("2d"), [width, height, ratio] = this.size()
    const { colours, hover, other, lasso, line, data } = this.map, lens = this.lens
    pen.setTransform(ratio, 0, 0, ratio, 0, 0)
    pen.clearRect(0, 0, width, height)
    for (const { rows, colour, shape, size } of this.spec.rings) {
      for (const row of rows) drawMark(pen, this.pixelOf(row), shape, size, colour, colours.background)
    }
    for (const shape of data.anchor >= 0 ? ["cross", "circle"] : []) {
      drawMark(pen, this.pixelOf(data.anchor), shape, 7, colours.text, colours.background)
    }
    for (const row of [hover, other]) {
      if (row >= 0) drawMark(pen, this.pixelOf(row), "circle", 9, colours.text, colours.background)
    }
    const closed = lasso?.panel === this.number ? lasso.corners.map((corner) => lens.pixel(...corner)) : []
    const drawing = line?.panel === this ? line.pixels : closed
    if (drawing.length < 2) return
    pen.beginPath()
    drawing.forEach(([x, y]) => pen.lineTo(x, y))
    if (line?.panel !== this) pen.closePath()
    Object.assign(pen, { fillStyle: colours.text, globalAlpha: 0.06 })
    pen.fill()
    Object.assign(pen, { strokeStyle: colours.text, globalAlpha: 0.9, lineWidth: 1.6 })
    pen.setLineDash([5, 4])
    pen.stroke()
    pen.setLineDash([])
    pen.globalAlpha = 1
  }

  pixelOf(row) {
    return this.lens.pixel(this.points.places[2 * row], this.points.places[2 * row + 1])
  }

  hit([px, py], reach = 9) {
    const lens = this.lens, [x, y] = lens.place(px, py)
    return this.points.nearest(x, y, reach / lens.scale)
  }

  zoom(factor, [px, py] = [this.stage.clientWidth / 2, this.stage.clientHeight / 2]) {
    const lens = this.lens, [x, y] = lens.place(px, py)
    const span = Math.min(Math.max(lens.span * factor, 40), 2 * GRID), share = span / lens.span
    this.map.look(this, { x: x + (lens.x - x) * share, y: y + (lens.y - y) * share, span })
  }

  listen() {
    const at = (event) => {
      const box = this.stage.getBoundingClientRect()
      return [event.clientX - box.left - this.stage.clientLeft, event.clientY - box.top - this.stage.clientTop]
    }
    this.stage.onpointerdown = (event) => {
      if (!this.points || event.button) return
      this.stage.setPointerCapture(event.pointerId)
      this.start = { at: at(event), view: this.lens, moved: false }
      if (event.shiftKey || this.map.lassoing) this.map.line = { panel: this, pixels: [at(event)] }
    }
    this.stage.onpointermove = (event) => {
      if (!this.points) return
      const [px, py] = at(event)
      this.map.byKey = false
      if (!this.start) return this.map.point(this, this.hit([px, py]))
      const [dx, dy] = [px - this.start.at[0], py - this.start.at[1]]
      this.start.moved ||= Math.hypot(dx, dy) > 3
      if (this.map.line) {
        this.map.line.pixels.push([px, py])
        this.drawMarks()
      } else if (this.start.moved) {
        const { x, y, span, scale } = this.start.view
        this.map.point(this, -1)
        this.map.look(this, { x: x - dx / scale, y: y + dy / scale, span })
      }
    }
    this.stage.onpointerup = (event) => {
      const { start } = this, { line } = this.map
      this.start = this.map.line = null
      if (!start) return
      if (line && start.moved) this.map.close(this, line.pixels)
      else if (!start.moved) this.map.pick(this.hit(at(event)))
      this.map.drawMarks()
    }
    this.stage.onpointercancel = () => { this.start = this.map.line = null }
    this.stage.onpointerleave = () => { if (!this.start) this.map.point(this, -1) }
    this.stage.ondblclick = () => this.map.look(this, null)
    this.wheel = (event) => {
      if (!this.points || (event.deltaY > 0 && !this.map.viewOf(this))) return // all items are in view: scroll the page
      event.preventDefault()
      this.zoom(Math.exp(Math.min(Math.max(event.deltaY, -120), 120) * 0.0022), at(event))
    }
    this.stage.addEventListener("wheel", this.wheel, { passive: false })
    this.stage.onkeydown = (event) => {
      if (this.points && !event.ctrlKey && !event.metaKey && !event.altKey && this.map.key(this, event.key)) {
        event.preventDefault()
        event.stopPropagation()
      }
    }
  }
}

class MapView {
  constructor(root) {
    this.root = root
    this.box = root.querySelector(".map")
    this.tip = this.box.querySelector(".tip")
    this.spoken = this.box.querySelector(".spoken")
    Object.assign(this, { panels: [], hover: -1, other: -1, picked: -1, descriptions: new Map(), views: [null, null] })
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
    MAPS.delete(this.root)
  }

  update(data, send) {
    const style = getComputedStyle(this.box), colour = (name, other) => style.getPropertyValue(name).trim() || other
    const colours = { text: colour("--st-text-color", "#1C2530"), background: colour("--st-background-color", "#FFFFFF") }
    const another = this.data?.scope !== data.scope
    let stale = another || colours.background !== this.colours?.background || this.panels.length !== data.panels.length
    if (another) Object.assign(this, { hover: -1, other: -1, picked: -1, linkedView: new LinkedText(), linkedLasso: new LinkedText() })
    if (this.picked === data.anchor || Date.now() > this.pickedBy) this.picked = -1
    if (another || this.data?.context !== data.context) this.descriptions = new Map()
    Object.assign(this, { data, send, colours })
    if (data.description) this.descriptions.set(data.description.row, data.description)
    fetched(data.names, (response) => response.json()).then((names) => { this.names = names }).catch(() => {})
    fetched(data.labels, array(Uint32Array)).then((labels) => { this.labels = labels }).catch(() => {})
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
    const { hover, picked, linkedLasso, linkedView } = this
    this.send({ hovered: hover, picked, lasso: linkedLasso.text, view: linkedView.text, at: Date.now() })
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
