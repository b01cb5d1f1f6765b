// A map's lens and legend, arrays that are fetched once, and the text of views and lassos in links.

const GRID = 65535, FURTHEST = 65536 // a corner may lie outside the grid by its width
const PATIENCE = 10000 // milliseconds

// A view of the grid through a canvas: its centre, and the number of grid steps along the canvas's shorter side.
class Lens {
  constructor(view, width, height) {
    Object.assign(this, view, { width, height, scale: Math.min(width, height) / view.span })
  }

  static fit({ left, right, bottom, top }, width, height) {
    const room = (side, edge) => Math.max(side - 2 * edge, 20) // the tools are at the right edge
    const scale = Math.min(room(width, 46) / Math.max(right - left, 1), room(height, 22) / Math.max(top - bottom, 1))
    return { x: (left + right) / 2, y: (bottom + top) / 2, span: Math.min(width, height) / scale }
  }

  pixel(x, y) {
    return [(x - this.x) * this.scale + this.width / 2, this.height / 2 - (y - this.y) * this.scale]
  }

  place(px, py) {
    return [(px - this.width / 2) / this.scale + this.x, (this.height / 2 - py) / this.scale + this.y]
  }
}

// The line with fewer corners, within a tolerance of the original (Douglas and Peucker).
function simplified(line, tolerance) {
  if (line.length < 3) return line
  const [[ax, ay], [bx, by]] = [line[0], line[line.length - 1]]
  const length = Math.hypot(bx - ax, by - ay)
  let far = 0, worst = -1
  line.forEach(([x, y], at) => {
    const off = length ? Math.abs((bx - ax) * (y - ay) - (x - ax) * (by - ay)) / length : Math.hypot(x - ax, y - ay)
    if (off > worst) [worst, far] = [off, at]
  })
  if (worst <= tolerance) return [line[0], line[line.length - 1]]
  return [...simplified(line.slice(0, far + 1), tolerance).slice(0, -1), ...simplified(line.slice(far), tolerance)]
}

// A choice made here that links contain: the text sent last is valid until the server has confirmed it, or a timeout.
class LinkedText {
  text = ""
  validUntil = 0

  changed(text) {
    if (text === this.text) this.validUntil = 0
    if (text === this.text || Date.now() < this.validUntil) return false
    this.text = text
    return true
  }

  choose(text) {
    this.text = text
    this.validUntil = Date.now() + PATIENCE
  }
}

const writeView = (view) => (view ? [view.x, view.y, view.span].map(Math.round).join(".") : "all")
function readView(text) {
  const [x, y, span] = text.split(".").map(Number)
  return span > 0 ? { x, y, span } : null
}
const writeLasso = ({ panel, corners }) => (panel ? "2_" : "") + corners.map((corner) => corner.join(".")).join("_")
function readLasso(text) {
  if (!text) return null
  const panel = text.startsWith("2_") ? 1 : 0
  return { panel, corners: text.slice(2 * panel).split("_").map((corner) => corner.split(".").map(Number)) }
}

const ARRAYS = new Map() // by address, which is derived from the content
function fetched(address, read) {
  if (!ARRAYS.has(address)) {
    const request = fetch(new URL("." + address, document.baseURI)).then((response) => {
      if (!response.ok) throw new Error(`${response.status}`)
      return read(response)
    })
    request.catch(() => ARRAYS.delete(address))
    ARRAYS.set(address, request)
    if (ARRAYS.size > 24) ARRAYS.delete(ARRAYS.keys().next().value)
  }
  return ARRAYS.get(address)
}
const array = (kind) => (response) => response.arrayBuffer().then((buffer) => new kind(buffer))

function element(name, className, text = "") {
  const made = document.createElement(name)
  made.className = className
  made.textContent = text
  return made
}

function legend(spec) {
  const box = element("span", "legend")
  if (spec.ends[0]) {
    const bar = element("i", "bar")
    const stops = spec.palette.slice(1).filter((_, at, all) => !(at % 32) || at === all.length - 1)
    bar.style.background = `linear-gradient(90deg,${stops.join(",")})`
    box.append(element("span", "", spec.ends[0]), bar, element("span", "", spec.ends[1]))
  }
  for (const { title, colour, glyph, count } of spec.keys) {
    const key = element("span", "key"), mark = element("i", glyph) // without a colour it stays invisible
    mark.style.setProperty("--mark", colour)
    key.append(mark, `${title} ${count ? count.toLocaleString("en") : ""}`)
    box.append(key)
  }
  return box
}
