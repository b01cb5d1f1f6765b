// One map of the canvas: its points and what lies over them, and what a pointer does on it.

class Panel {
  constructor(map, number) {
    Object.assign(this, { map, number, tiles: [] })
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
    const [places, codes, spots, kept] = await Promise.all([
      fetched(spec.places, array(Uint16Array)), fetched(spec.codes, array(Uint8Array)),
      fetched(spec.spots, array(Uint32Array)), spec.kept && fetched(spec.kept, array(Uint8Array)),
    ])
    if (this.spec !== spec) return // a newer spec is loading
    if (this.places !== places || (this.points.kept || "") !== kept) {
      [this.places, this.points] = [places, new Points(places, kept || null)]
      this.map.select()
    }
    this.spots = spots
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
    const { colours, selected, data, names, pictures } = this.map, lens = this.lens, points = this.points
    const rows = drawPoints(this.base, ratio, points, this.look, lens, selected, colours.background)
    const pen = this.base.getContext("2d")
    pen.setTransform(ratio, 0, 0, ratio, 0, 0)
    if (data.layers.includes("contours")) drawContours(pen, (points.contours ||= contours(points, points.kept)), lens, colours)
    const whole = Lens.fit(points.bounds, width, height).span
    this.tiles = data.layers.includes("pictures") ? tilesOf(rows, lens, whole, points.places) : []
    const share = (row) => (selected && !selected[row] ? FAINT : 1)
    drawTiles(pen, this.tiles, pictures, (row) => mixed(this.look.colour(row), colours.background, share(row)))
    const named = data.layers.includes("names") && names ? drawNames(pen, this.spots, names, lens, colours) : 0
    // Read by tests.
    Object.assign(this.stage.dataset, { view: [lens.x, lens.y, lens.span].join(" "), drawn: points.count, named })
    this.stage.dataset.pictures = this.tiles.filter(({ row }) => pictures.has(row)).length
    this.note.textContent = rows.length < points.shownCount ? `${rows.length.toLocaleString("en")} in view` : ""
    this.map.want()
    this.drawMarks()
  }

  drawMarks() {
    if (!this.points) return
    const pen = this.marks.getContext("2d"), [width, height, ratio] = this.size()
    const { colours, hover, other, lasso, line, data } = this.map, lens = this.lens
    pen.setTransform(ratio, 0, 0, ratio, 0, 0)
    pen.clearRect(0, 0, width, height)
    for (const { rows, colour, shape, size } of this.spec.rings) {
      for (const row of rows) if (this.points.has(row)) drawMark(pen, this.pixelOf(row), shape, size, colour, colours.background)
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
    const over = ({ row, x, y, side }) => this.map.pictures.has(row) && Math.max(Math.abs(x - px), Math.abs(y - py)) < side / 2
    const tile = this.tiles.find(over), lens = this.lens, [x, y] = lens.place(px, py)
    return tile ? tile.row : this.points.nearest(x, y, reach / lens.scale)
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

