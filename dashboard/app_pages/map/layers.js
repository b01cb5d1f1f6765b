// What lies over the points of a map: contours of their density, pictures of items when zoomed in, names of classes.

const CELLS_ACROSS = 224, REACH = 4, EDGE = 3 * REACH + 1 // of the grid of the density; cells around it keep contours closed
const SHARES = [0.9, 0.6, 0.3] // of the points, inside each contour
const PICTURES_FROM = 0.7 // share of the whole map in view, along an axis, below which pictures are shown
const MOST_NEAR = 500 // points in view above which there are no pictures
const MOST_NAMES = 40
const LONGEST_NAME = 26 // letters
const ABOVE = 13 // pixels between a name and the middle of its group, which it doesn't hide
const ONCE_WITHIN = 180 // pixels around a name without the same name again

// One path per share, in steps of the map's grid.
function contours({ places, count }, kept) {
  const side = CELLS_ACROSS + 2 * EDGE, cell = (GRID + 1) / CELLS_ACROSS
  const cellOf = (row) => (EDGE + Math.floor(places[2 * row + 1] / cell)) * side + EDGE + Math.floor(places[2 * row] / cell)
  const rows = Uint32Array.from({ length: count }, (_, row) => row).filter((row) => !kept || kept[row])
  let density = new Float32Array(side * side)
  for (const row of rows) density[cellOf(row)]++
  for (const step of [1, side, 1, side, 1, side]) density = blurred(density, step)
  const values = Float32Array.from(rows, (row) => density[cellOf(row)]).sort()
  return SHARES.map((share) => contour(density, side, values[Math.floor((1 - share) * values.length)], cell))
}

// The mean of the cells within reach along a row (a step of 1) or a column.
function blurred(density, step) {
  return density.map((_, at) => {
    let sum = 0
    for (let away = -REACH; away <= REACH; away++) sum += density[at + away * step] || 0
    return sum / (2 * REACH + 1)
  })
}

// Where a density crosses a level: a line through each square of four cells that it crosses (marching squares).
function contour(density, side, level, cell) {
  const path = new Path2D(), corners = [[0, 0], [1, 0], [1, 1], [0, 1]]
  for (let at = 0; at < side * (side - 1) - 1; at++) {
    const values = corners.map(([right, up]) => density[at + right + up * side]), crossed = []
    corners.forEach(([x, y], one) => {
      const next = (one + 1) % 4, [from, to] = [values[one], values[next]]
      if (from < level === to < level) return
      const share = (level - from) / (to - from), [nextX, nextY] = corners[next]
      crossed.push([x + (nextX - x) * share, y + (nextY - y) * share])
    })
    crossed.forEach(([x, y], one) => {
      const place = [(at % side) + x, Math.floor(at / side) + y].map((cells) => (cells + 0.5 - EDGE) * cell)
      one % 2 ? path.lineTo(...place) : path.moveTo(...place)
    })
  }
  return path
}

function drawContours(pen, paths, { x, y, scale, width, height }, { text }) {
  const toPixels = new DOMMatrix([scale, 0, 0, -scale, width / 2 - x * scale, height / 2 + y * scale])
  Object.assign(pen, { strokeStyle: text, lineWidth: 1 })
  paths.forEach((path, at) => {
    const moved = new Path2D()
    moved.addPath(path, toPixels)
    pen.globalAlpha = 0.25 + 0.15 * at
    pen.stroke(moved)
  })
  pen.globalAlpha = 1
}

// The rows that are shown as pictures, none over another; rows that are drawn last come first.
function tilesOf(rows, lens, whole, places) {
  if (rows.length > MOST_NEAR || lens.span > PICTURES_FROM * whole) return []
  const side = rows.length > 40 ? 46 : 70, tiles = []
  for (const row of rows.slice().reverse()) {
    const [x, y] = lens.pixel(places[2 * row], places[2 * row + 1])
    const apart = (tile) => Math.abs(tile.x - x) > side + 5 || Math.abs(tile.y - y) > side + 5
    if (x > 0 && y > 0 && x < lens.width && y < lens.height && tiles.every(apart)) tiles.push({ row, x, y, side })
  }
  return tiles
}

// A picture in a frame of its point's colour; a point whose picture isn't there yet remains a point.
function drawTiles(pen, tiles, pictures, colourOf) {
  for (const { row, x, y, side } of tiles) {
    const picture = pictures.get(row)
    if (!picture) continue
    const scale = side / Math.max(picture.width, picture.height), [width, height] = [picture.width * scale, picture.height * scale]
    pen.fillStyle = colourOf(row)
    pen.fillRect(x - width / 2 - 2.5, y - height / 2 - 2.5, width + 5, height + 5)
    pen.drawImage(picture, x - width / 2, y - height / 2, width, height)
  }
}

// Names of classes that don't collide. The largest groups come first, so that zooming in makes room for more.
function drawNames(pen, spots, names, lens, { text, background }) {
  const taken = []
  Object.assign(pen, { font: `600 12px ${getComputedStyle(pen.canvas).fontFamily}`, textBaseline: "middle", lineJoin: "round" })
  for (let at = 0; at < spots.length && taken.length < MOST_NAMES; at += 3) {
    const [x, middle] = lens.pixel(spots[at], spots[at + 1]), name = shortened(names[spots[at + 2]])
    const y = middle - ABOVE
    if (x < 0 || y < 8 || x > lens.width || y > lens.height - 8) continue
    const width = pen.measureText(name).width, left = Math.min(Math.max(x - width / 2, 6), lens.width - 46 - width)
    const clear = (other) => (left > other.right + 12 || left + width < other.left - 12 || Math.abs(y - other.y) > 22)
      && (name !== other.name || Math.hypot(x - other.x, y - other.y) > ONCE_WITHIN)
    if (!taken.every(clear)) continue
    taken.push({ name, x, y, left, right: left + width })
    Object.assign(pen, { strokeStyle: background, fillStyle: text, lineWidth: 4 })
    pen.strokeText(name, left, y)
    pen.fillText(name, left, y)
  }
  return taken.length
}

const shortened = (name) => (name.length > LONGEST_NAME ? `${name.slice(0, LONGEST_NAME - 1)}…` : name)
