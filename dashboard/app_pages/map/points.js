// The points of a map: the one under a pointer, those inside a lasso, and how all of them are drawn.
// Places are whole numbers on the 16-bit grid of lasso.py, with y upward.

const CELLS = 256 // of the index along each axis
const FAINT = 0.2 // share of its colour that a point outside a selection keeps
const SPLAT_FROM = 20000 // number of points in view above which each is drawn as a few pixels instead of a disc

class Points {
  // kept: 1 for each row that a filter leaves; null without a filter.
  constructor(places, kept) {
    Object.assign(this, { places, kept, count: places.length / 2 })
    this.shownCount = kept ? kept.reduce((sum, one) => sum + one, 0) : this.count
    let [left, right, bottom, top] = [65535, 0, 65535, 0]
    for (let at = 0; at < places.length; at += 2) {
      if (places[at] < left) left = places[at]
      if (places[at] > right) right = places[at]
      if (places[at + 1] < bottom) bottom = places[at + 1]
      if (places[at + 1] > top) top = places[at + 1]
    }
    this.bounds = this.count ? { left, right, bottom, top } : { left: 0, right: 65535, bottom: 0, top: 65535 }
  }

  // Rows sorted by cell, and where the rows of each cell start.
  get index() {
    if (!this.cells) {
      const starts = new Uint32Array(CELLS * CELLS + 1)
      const cell = (row) => (this.places[2 * row] >> 8) * CELLS + (this.places[2 * row + 1] >> 8)
      for (let row = 0; row < this.count; row++) starts[cell(row) + 1]++
      for (let at = 0; at < CELLS * CELLS; at++) starts[at + 1] += starts[at]
      const next = starts.slice(), rows = new Uint32Array(this.count)
      for (let row = 0; row < this.count; row++) rows[next[cell(row)]++] = row
      this.cells = { starts, rows }
    }
    return this.cells
  }

  // Whether a row is drawn: a filter may leave it out.
  has(row) {
    return !this.kept || this.kept[row] === 1
  }

  // The row nearest to a place within a radius; -1 if there is none.
  nearest(x, y, radius) {
    const { starts, rows } = this.index
    const within = (value) => Math.min(Math.max(value >> 8, 0), CELLS - 1)
    let best = -1, least = radius * radius
    for (let column = within(x - radius); column <= within(x + radius); column++) {
      const from = starts[column * CELLS + within(y - radius)], to = starts[column * CELLS + within(y + radius) + 1]
      for (let at = from; at < to; at++) {
        const dx = this.places[2 * rows[at]] - x, dy = this.places[2 * rows[at] + 1] - y
        if (dx * dx + dy * dy <= least && this.has(rows[at])) {
          least = dx * dx + dy * dy
          best = rows[at]
        }
      }
    }
    return best
  }

  // The nearest row to the left, right, top or bottom of another: within 45 degrees of that direction.
  toward(row, dx, dy) {
    let best = row, least = Infinity
    for (let other = 0; other < this.count; other++) {
      const x = this.places[2 * other] - this.places[2 * row], y = this.places[2 * other + 1] - this.places[2 * row + 1]
      const along = x * dx + y * dy, across = Math.abs(x * dy - y * dx)
      if (along > 0 && across <= along && x * x + y * y < least && this.has(other)) {
        least = x * x + y * y
        best = other
      }
    }
    return best
  }

  // 1 for each row inside a closed line, by the even-odd rule, exactly as in lasso.py.
  inside(corners) {
    const selected = new Uint8Array(this.count), [xs, ys] = [corners.map((c) => c[0]), corners.map((c) => c[1])]
    const [left, right, bottom, top] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)]
    for (let row = 0; row < this.count; row++) {
      const x = this.places[2 * row], y = this.places[2 * row + 1]
      if (x < left || x > right || y < bottom || y > top || !this.has(row)) continue
      for (let at = 0; at < corners.length; at++) {
        const [ax, ay] = corners[at], [bx, by] = corners[(at + 1) % corners.length]
        if (ay > y === by > y) continue
        const leftOf = (bx - ax) * (y - ay) - (x - ax) * (by - ay)
        if (by > ay ? leftOf > 0 : leftOf < 0) selected[row] ^= 1
      }
    }
    return selected
  }
}

// #RRGGBB of a translucent colour on a background: overlapping points must not add up to another colour.
function mixed(colour, background, share = 1) {
  const part = (text, at) => parseInt(text.slice(at, at + 2) || "FF", 16)
  const alpha = (share * part(colour, 7)) / 255
  return "#" + [1, 3, 5].map((at) => {
    const value = Math.round(part(colour, at) * alpha + part(background, at) * (1 - alpha))
    return value.toString(16).padStart(2, "0")
  }).join("")
}

// How points look: a code per row; a colour, a glyph and a layer per code. Higher layers are drawn last, on top.
class Look {
  constructor(codes, { palette, glyphs, layers }) {
    Object.assign(this, { codes, palette, glyphs, sprites: new Map() })
    if (layers.length) {
      const next = new Uint32Array(257)
      for (const code of codes) next[layers[code] + 1]++
      for (let at = 0; at < 256; at++) next[at + 1] += next[at]
      this.order = new Uint32Array(codes.length)
      for (let row = 0; row < codes.length; row++) this.order[next[layers[codes[row]]]++] = row
    }
  }

  colour(row) {
    return this.palette[this.codes[row]]
  }

  // Faint and full colours of all codes, as 32-bit pixels.
  pixels(background) {
    if (this.madeOn !== background) {
      const part = (colour, at) => parseInt(colour.slice(at, at + 2), 16)
      const bits = (colour) => (0xff000000 | (part(colour, 5) << 16) | (part(colour, 3) << 8) | part(colour, 1)) >>> 0
      this.made = [FAINT, 1].map((share) => Uint32Array.from(this.palette, (colour) => bits(mixed(colour, background, share))))
      this.madeOn = background
    }
    return this.made
  }

  sprite(code, share, radius, ratio, background) {
    const key = `${code} ${share} ${radius} ${ratio} ${background}`
    if (!this.sprites.has(key)) {
      const made = this.makeSprite(this.glyphs[code], mixed(this.palette[code], background, share), radius, ratio, background)
      this.sprites.set(key, made)
    }
    return this.sprites.get(key)
  }

  makeSprite(glyph, colour, radius, ratio, background) {
    const side = 2 * radius + 4, made = document.createElement("canvas"), pen = made.getContext("2d")
    made.width = made.height = Math.ceil(side * ratio)
    pen.scale(ratio, ratio)
    pen.translate(side / 2, side / 2)
    for (const [fill, rim] of [[background, 1.2], [colour, 0]]) { // a rim separates points that touch
      Object.assign(pen, { fillStyle: fill, strokeStyle: fill, lineWidth: 1.8 + rim, lineCap: "round" })
      pen.beginPath()
      if (glyph === "cross") {
        for (const up of [-1, 1]) {
          pen.moveTo(-radius * 0.7, -radius * 0.7 * up)
          pen.lineTo(radius * 0.7, radius * 0.7 * up)
        }
        pen.stroke()
      } else {
        pen.arc(0, 0, radius + rim / 2, 0, 2 * Math.PI)
        pen.fill()
      }
    }
    return made
  }
}

// Draw the points in view, those outside a selection first and faintly. Returns their rows in this order.
function drawPoints(canvas, ratio, points, look, lens, selected, background) {
  const pen = canvas.getContext("2d"), { width, height } = canvas, { places, count } = points
  pen.setTransform(1, 0, 0, 1, 0, 0)
  pen.clearRect(0, 0, width, height)
  const scale = lens.scale * ratio, left = width / 2 - lens.x * scale, top = height / 2 + lens.y * scale
  const shown = (points.shown ||= new Uint32Array(count))
  let visible = 0, faint = 0
  for (const pass of selected ? [0, 1] : [1]) {
    for (let at = 0; at < count; at++) {
      const row = look.order ? look.order[at] : at
      if ((selected && selected[row] !== pass) || !points.has(row)) continue
      const x = left + places[2 * row] * scale, y = top - places[2 * row + 1] * scale
      if (x > -8 && x < width + 8 && y > -8 && y < height + 8) shown[visible++] = row
    }
    if (!pass) faint = visible
  }
  if (visible >= SPLAT_FROM) {
    const side = Math.max(Math.round((visible > 300000 ? 1 : 2) * ratio), 1)
    splat(pen, shown.subarray(0, visible), faint, side, points, look, background, [left, top, scale])
    return shown.subarray(0, visible)
  }
  const radius = visible > 9000 ? 2 : visible > 3000 ? 2.6 : visible > 600 ? 3.6 : 4.8, half = (radius + 2) * ratio
  for (let at = 0; at < visible; at++) {
    const row = shown[at], sprite = look.sprite(look.codes[row], at < faint ? FAINT : 1, radius, ratio, background)
    const x = left + places[2 * row] * scale, y = top - places[2 * row + 1] * scale
    pen.drawImage(sprite, Math.round(x - half), Math.round(y - half))
  }
  return shown.subarray(0, visible)
}

// Draw each point as a square of pixels, written into the image directly: a million in about 20 ms.
function splat(pen, rows, faintOnes, side, { places }, look, background, [left, top, scale]) {
  const { width, height } = pen.canvas, image = pen.createImageData(width, height)
  const pixels = new Uint32Array(image.data.buffer), [faint, full] = look.pixels(background)
  for (let at = 0; at < rows.length; at++) {
    const row = rows[at], colour = (at < faintOnes ? faint : full)[look.codes[row]]
    const x = (left + places[2 * row] * scale - side / 2) | 0, y = (top - places[2 * row + 1] * scale - side / 2) | 0
    for (let down = y < 0 ? -y : 0; down < side && y + down < height; down++) {
      for (let right = x < 0 ? -x : 0; right < side && x + right < width; right++) {
        pixels[(y + down) * width + x + right] = colour
      }
    }
  }
  pen.putImageData(image, 0, 0)
}

const SHAPES = {
  circle: (pen, size) => pen.arc(0, 0, size, 0, 2 * Math.PI),
  square: (pen, size) => pen.rect(-size, -size, 2 * size, 2 * size),
  diamond: (pen, size) => [[0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]].forEach(([x, y]) => pen.lineTo(x * size, y * size)),
  "triangle-up": (pen, size) => [[0, -1.4], [1.3, 0.9], [-1.3, 0.9]].forEach(([x, y]) => pen.lineTo(x * size, y * size)),
  hexagon: (pen, size) => [0, 1, 2, 3, 4, 5].forEach((at) => {
    pen.lineTo(1.15 * size * Math.sin((at * Math.PI) / 3), 1.15 * size * Math.cos((at * Math.PI) / 3))
  }),
  cross: (pen, size) => [[0, -1], [1, 0], [0, 1], [-1, 0]].forEach(([x, y]) => {
    pen.moveTo(x * size * 0.75, y * size * 0.75)
    pen.lineTo(x * size * 1.6, y * size * 1.6)
  }),
}

// An outlined shape around a pixel, with a background rim to stand out among points of the same colour.
function drawMark(pen, [x, y], shape, size, colour, background) {
  pen.save()
  pen.translate(x, y)
  for (const [stroke, width] of [[background, 5], [colour, 2.2]]) {
    Object.assign(pen, { strokeStyle: stroke, lineWidth: width, lineJoin: "round" })
    pen.beginPath()
    SHAPES[shape](pen, size)
    if (shape !== "cross") pen.closePath()
    pen.stroke()
  }
  pen.restore()
}
