// What a map is seen with: its lens, its legend, arrays that are fetched once; views and lassos as a link carries them.

const GRID = 65535, FURTHEST = 65536 // a corner may lie a grid's width outside
const PATIENCE = 10000 // milliseconds

// A view of the grid through a canvas: its centre, and how many steps of the grid its shorter side shows.
class Lens {
  constructor(view, width, height) {
    Object.assign(this, view, { width, height, scale: Math.min(width, height) / view.span })
  }

  static fit({ left, right, bottom, top }, width, height) {
    const room = (side, edge) => Math.max(side - 2 * edge, 20) // the tools lie on the right edge
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

// A line with fewer corners, nowhere further than a tolerance from the one given (Douglas and Peucker).
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

// A choice that this page makes and a link may hold: what was sent last holds until the server has heard of it.
class Held {
  text = ""
  heardBy = 0

  changed(text) {
    if (text === this.text) this.heardBy = 0
    if (text === this.text || Date.now() < this.heardBy) return false
    this.text = text
    return true
  }

  choose(text) {
    this.text = text
    this.heardBy = Date.now() + PATIENCE
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

const ARRAYS = new Map() // by address, which is made from the content
function fetched(address, read) {
  if (!ARRAYS.has(address)) {
    const got = fetch(new URL("." + address, document.baseURI)).then((answer) => {
      if (!answer.ok) throw new Error(`${answer.status}`)
      return read(answer)
    })
    got.catch(() => ARRAYS.delete(address))
    ARRAYS.set(address, got)
    if (ARRAYS.size > 24) ARRAYS.delete(ARRAYS.keys().next().value)
  }
  return ARRAYS.get(address)
}
const array = (kind) => (answer) => answer.arrayBuffer().then((buffer) => new kind(buffer))

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
    const key = element("span", "key"), mark = element("i", glyph)
    mark.style.setProperty("--mark", colour)
    key.append(mark, `${title} ${count ? count.toLocaleString("en") : ""}`)
    box.append(key)
  }
  return box
}
