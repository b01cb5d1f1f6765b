"use strict"
// The lesson in a file: it shows what file.py measured, and computes S from the weights of the chosen step.
const content = JSON.parse(document.getElementById("content").textContent)
const stage = document.getElementById("stage")
const EXTENT = [-3.4, -1.9, 3.4, 1.9]
const choices = {}

// ---- The unit: u = |a - b|, v = (a + b) / 2, S = W_s relu(W_c [norm relu(W_u u); norm relu(W_v v)]).

function unitOf(text) {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0))
  const values = new Float32Array(bytes.buffer)
  // 2h + h of difference, the same of position, 2hh + h of joint, h + 1 of score: 2h² + 8h + 1 numbers.
  const hidden = Math.round((-8 + Math.sqrt(64 + 8 * (values.length - 1))) / 4)
  let at = 0
  const take = count => values.subarray(at, (at += count))
  const layer = (inputs, outputs) => ({ weights: take(inputs * outputs), biases: take(outputs), inputs })
  return { difference: layer(2, hidden), position: layer(2, hidden), joint: layer(2 * hidden, hidden), score: layer(hidden, 1) }
}

function through(layer, input) {
  return Array.from(layer.biases, (bias, row) => {
    let sum = bias
    for (let column = 0; column < layer.inputs; column++) sum += layer.weights[row * layer.inputs + column] * input[column]
    return sum
  })
}

const relu = values => values.map(value => Math.max(0, value))

function norm(values) {
  const length = Math.max(Math.hypot(...values), 1e-12)
  return values.map(value => value / length)
}

function score(unit, a, b) {
  const u = [Math.abs(a[0] - b[0]), Math.abs(a[1] - b[1])], v = [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2]
  const both = [...norm(relu(through(unit.difference, u))), ...norm(relu(through(unit.position, v)))]
  return through(unit.score, relu(through(unit.joint, both)))[0]
}

// ---- Elements.

function make(name, properties = {}, ...children) {
  const element = document.createElement(name)
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value)
    else if (value !== undefined) element.setAttribute(key, value)
  }
  element.append(...children)
  return element
}

function draw(parent, name, properties, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name)
  for (const [key, value] of Object.entries(properties)) element.setAttribute(key, value)
  element.textContent = text
  parent.append(element)
  return element
}

// A picture of a part of the plane; `toX`, `toY` lead from the plane into it.
function picture([left, low, right, high], label) {
  const width = 900, scale = width / (right - left), height = (high - low) * scale
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg")
  for (const [key, value] of Object.entries({ viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label })) svg.setAttribute(key, value)
  return { svg, width, height, scale, extent: [left, low, right, high], toX: x => (x - left) * scale, toY: y => (high - y) * scale }
}

const SHAPES = [
  (x, y, r) => `M${x - r},${y}a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0`,
  (x, y, r) => `M${x - r},${y - r}h${2 * r}v${2 * r}h${-2 * r}z`,
  (x, y, r) => polygon(x, y, 1.3 * r, 4, 0), (x, y, r) => polygon(x, y, 1.3 * r, 3, -Math.PI / 2),
  (x, y, r) => polygon(x, y, 1.15 * r, 5, -Math.PI / 2), (x, y, r) => polygon(x, y, 1.3 * r, 3, Math.PI / 2),
]

function polygon(x, y, r, corners, turn) {
  const ends = Array.from({ length: corners }, (_, at) => turn + (2 * Math.PI * at) / corners)
  return `M${ends.map(angle => `${(x + r * Math.cos(angle)).toFixed(1)},${(y + r * Math.sin(angle)).toFixed(1)}`).join("L")}z`
}

function mark(plane, point, label, { size = 6, opacity = 1, open = false, pick } = {}) {
  const colour = content.classes[label % content.classes.length]
  const element = draw(plane.svg, "path", {
    d: SHAPES[label % SHAPES.length](plane.toX(point[0]), plane.toY(point[1]), size), fill: open ? "var(--page)" : colour,
    stroke: open ? colour : "none", "stroke-width": 2, opacity, ...(pick ? { class: "point" } : {}),
  })
  if (pick) element.addEventListener("click", pick)
}

function cross(plane, point, r = 13) {
  const x = plane.toX(point[0]), y = plane.toY(point[1]), t = 0.3 * r
  draw(plane.svg, "path", {
    d: `M${x - t},${y - r}h${2 * t}v${r - t}h${r - t}v${2 * t}h${t - r}v${r - t}h${-2 * t}v${t - r}h${t - r}v${-2 * t}h${r - t}z`,
    fill: "var(--mark)", stroke: "var(--ring)", "stroke-width": 2,
  })
}

// S over the plane in steps of one colour, and the line inside which it is above a level.
function terrain(plane, unit, anchor, level) {
  const [left, low, right, high] = plane.extent, columns = 110, rows = Math.round((columns * (high - low)) / (right - left))
  const at = (row, column) => [left + ((right - left) * column) / (columns - 1), high - ((high - low) * row) / (rows - 1)]
  const values = Array.from({ length: rows }, (_, row) => Array.from({ length: columns }, (_, column) => score(unit, anchor, at(row, column))))
  const ordered = values.flat().sort((one, other) => one - other), least = ordered[Math.floor(0.02 * ordered.length)], most = ordered.at(-1)
  const finer = 5, canvas = make("canvas", { width: columns * finer, height: rows * finer }), pen = canvas.getContext("2d")
  const image = pen.createImageData(canvas.width, canvas.height)
  const [red, green, blue] = [1, 3, 5].map(start => parseInt(content.colours.S.slice(start, start + 2), 16))
  for (let y = 0; y < canvas.height; y++)
    for (let x = 0; x < canvas.width; x++) {
      const row = (y / (canvas.height - 1)) * (rows - 1), column = (x / (canvas.width - 1)) * (columns - 1)
      const above = Math.min(Math.floor(row), rows - 2), beside = Math.min(Math.floor(column), columns - 2)
      const down = row - above, across = column - beside
      const upper = values[above][beside] * (1 - across) + values[above][beside + 1] * across
      const lower = values[above + 1][beside] * (1 - across) + values[above + 1][beside + 1] * across
      const share = (upper * (1 - down) + lower * down - least) / Math.max(most - least, 1e-6)
      image.data.set([red, green, blue, 165 * (Math.max(0, Math.min(9, Math.floor(share * 10))) / 9)], 4 * (y * canvas.width + x))
    }
  pen.putImageData(image, 0, 0)
  draw(plane.svg, "image", { href: canvas.toDataURL(), x: 0, y: 0, width: plane.width, height: plane.height, preserveAspectRatio: "none" })
  draw(plane.svg, "path", {
    d: contour(values, level, (row, column) => [(column / (columns - 1)) * plane.width, (row / (rows - 1)) * plane.height]), class: "contour",
    fill: "none", stroke: content.colours.S, "stroke-width": 5, "stroke-linecap": "round",
  })
}

// Marching squares: in each cell a line joins the places where S crosses the level on two of its sides.
function contour(values, level, place) {
  const parts = []
  for (let row = 0; row + 1 < values.length; row++)
    for (let column = 0; column + 1 < values[0].length; column++) {
      const corners = [[row, column], [row, column + 1], [row + 1, column + 1], [row + 1, column]]
      const ends = []
      corners.forEach((one, side) => {
        const other = corners[(side + 1) % 4], from = values[one[0]][one[1]], to = values[other[0]][other[1]]
        if (from > level === to > level) return
        const share = (level - from) / (to - from)
        ends.push(place(one[0] + share * (other[0] - one[0]), one[1] + share * (other[1] - one[1])))
      })
      for (let at = 0; at + 1 < ends.length; at += 2) parts.push(`M${ends[at].map(n => n.toFixed(1))}L${ends[at + 1].map(n => n.toFixed(1))}`)
    }
  return parts.join("")
}

function circle(plane, centre, radius) {
  draw(plane.svg, "circle", {
    cx: plane.toX(centre[0]), cy: plane.toY(centre[1]), r: radius * plane.scale, fill: "none", stroke: content.colours.D, "stroke-width": 4,
  })
}

function scenePoints(plane, scene, { size = 6, pick } = {}) {
  scene.points.forEach((point, row) => {
    const kind = scene.kinds[row]
    mark(plane, point, scene.labels[row], { size: kind ? size : 0.6 * size, opacity: kind ? 1 : 0.5, open: kind === 2, pick: pick && (() => pick(row)) })
  })
}

function legend(entries) {
  const list = make("ul", { class: "legend" })
  for (const [letter, words] of entries) list.append(make("li", { style: `--colour:${content.colours[letter]}` }, words))
  return list
}

// ---- Pictures of the exercises.

const PICTURES = {
  pair(answered) {
    const scene = content.scenes.fine, { query, a, b, level, radius } = content.pair, [x, y] = scene.points[query]
    const plane = picture([x - 1, y - 0.57, x + 1, y + 0.57], "A query among stripes, with the candidates a and b")
    if (answered) terrain(plane, unitOf(scene.steps.at(-1).weights), scene.points[query], level)
    scenePoints(plane, scene, { size: 9 })
    if (answered) circle(plane, scene.points[query], radius)
    for (const [name, row] of [["a", a], ["b", b]]) {
      const at = { x: plane.toX(scene.points[row][0]), y: plane.toY(scene.points[row][1]) }
      draw(plane.svg, "circle", { cx: at.x, cy: at.y, r: 17, fill: "var(--ring)", stroke: content.colours.L, "stroke-width": 5 })
      draw(plane.svg, "text", { x: at.x, y: at.y + 7, "text-anchor": "middle", "font-size": 22, "font-weight": 700, fill: "var(--mark)" }, name)
    }
    cross(plane, scene.points[query])
    return [answered ? legend([["S", "S: more similar than b"], ["D", "D: more similar than b"]]) : "", plane.svg]
  },
  stripes(answered) {
    const { points, labels } = content.scenes.fine
    return mistakes("stripes", points, labels, answered)
  },
  regions: answered => mistakes("regions", content.regions.points, content.regions.labels, answered),
}

function bounds(points, margin) {
  const [xs, ys] = [0, 1].map(axis => points.map(point => point[axis]))
  return [Math.min(...xs) - margin, Math.min(...ys) - margin, Math.max(...xs) + margin, Math.max(...ys) + margin]
}

function mistakes(name, points, labels, answered) {
  const plane = picture(bounds(points, 0.12), "Points of several classes")
  points.forEach((point, row) => mark(plane, point, labels[row], { size: 5, opacity: answered ? 0.45 : 1 }))
  if (!answered) return ["", plane.svg]
  const wrong = content.mistakes[name]
  for (const letter of ["D", "S"])
    for (const [row, other] of wrong[letter]) {
      const [x1, y1, x2, y2] = [points[row], points[other]].flatMap(point => [plane.toX(point[0]), plane.toY(point[1])])
      draw(plane.svg, "line", { x1, y1, x2, y2, stroke: content.colours[letter], "stroke-width": 4, "stroke-linecap": "round", class: `wrong-${letter}` })
    }
  return [legend(["D", "S"].map(letter => [letter, `${letter}: ${wrong[letter].length} of ${content.searched[name]} wrong`])), plane.svg]
}

// ---- Parts of the lesson.

function exercise(name) {
  const { question, choices: offered, answer } = content.exercises[name], guess = choices[name]
  const side = make("section", { "aria-labelledby": "title" }, make("h2", { id: "title" }, content.parts[name]), make("p", {}, question))
  const live = make("div", { "aria-live": "polite" })
  side.append(live)
  const shown = make("div", {}, ...PICTURES[name](guess !== undefined))
  if (guess === undefined) {
    const list = make("div", { class: "choices" })
    for (const [key, words] of Object.entries(offered))
      list.append(make("button", { "data-choice": key, onclick: () => { choices[name] = key; exercise(name) } }, words))
    side.append(list)
  } else {
    const right = guess === answer.choice, values = make("dl", { class: "values" })
    for (const [label, value] of Object.entries(answer.values)) values.append(make("div", {}, make("dt", {}, label), make("dd", {}, value)))
    const follows = Object.keys(content.parts)[Object.keys(content.parts).indexOf(name) + 1]
    const next = make("button", { class: "primary", id: "next", onclick: () => goTo(follows) }, `Next: ${content.parts[follows]}`)
    const again = make("button", { onclick: () => { delete choices[name]; exercise(name) } }, "Predict again")
    side.append(make("div", { class: "row" }, next, again))
    setTimeout(() => { // a screen reader reads what enters a live region after it is on the page
      live.append(
        make("p", { class: "verdict" }, make("strong", {}, right ? "✓ Right. " : "✗ Not what happened. "), `You predicted: ${offered[guess]}.`),
        values, make("p", {}, make("strong", {}, answer.result), ` ${answer.reason}`),
      )
      next.focus({ preventScroll: true })
    })
  }
  stage.className = ""
  stage.replaceChildren(shown, side)
}

const act = { region: 1, point: [...content.regions.middles] }

function neighbourhoods() {
  const { points, labels, starts, count, text, nearest } = content.regions
  const start = starts[act.region], size = nearest[act.region].D.length, row = act.point[act.region]
  const go = to => { act.point[act.region] = (to + size) % size; neighbourhoods() }
  const controls = make("div", { class: "row" })
  ;[[1, "The new region"], [0, "Where S and L learned"]].forEach(([region, words]) =>
    controls.append(make("button", { "aria-pressed": act.region === region, onclick: () => { act.region = region; neighbourhoods() } }, words)))
  controls.append(make("button", { id: "back", onclick: () => go(row - 1) }, "Previous point"), make("button", { id: "forth", onclick: () => go(row + 1) }, "Next point"))
  const panels = make("div", { class: "panels" }), own = points.slice(start, start + size)
  for (const letter of ["D", "S", "L"]) {
    const rows = nearest[act.region][letter][row], right = rows.filter(other => labels[start + other] === labels[start + row])
    const title = `${letter}: ${right.length} of ${count} right`, plane = picture(bounds(own, 0.1), title)
    own.forEach((point, other) => {
      const [x, y] = [plane.toX(point[0]), plane.toY(point[1])]
      const near = rows.includes(other), same = labels[start + other] === labels[start + row]
      const shape = !near ? SHAPES[0](x, y, 5) : same ? SHAPES[0](x, y, 12) : `M${x - 11},${y - 11}l22,22m0,-22l-22,22`
      const colour = !near ? "var(--faint)" : same ? "var(--right)" : "var(--wrong)"
      const element = draw(plane.svg, "path", {
        d: shape, fill: near && !same ? "none" : colour, stroke: near && !same ? colour : "none", "stroke-width": 6, opacity: near ? 1 : 0.6, class: "point",
      })
      element.addEventListener("click", () => go(other))
    })
    cross(plane, own[row], 26)
    panels.append(make("section", {}, make("h3", {}, title), plane.svg))
  }
  const focused = document.activeElement?.id
  stage.className = "wide"
  stage.replaceChildren(
    make("h2", {}, content.parts.neighbourhoods), make("p", {}, make("strong", {}, text[0])), controls, panels,
    make("p", {}, `● of the right class, × of another one. ${text[1]} Click a point to search with it.`),
    make("button", { class: "primary", id: "next", onclick: () => goTo("plane") }, `Next: ${content.parts.plane}`),
  )
  if (focused) document.getElementById(focused)?.focus()
}

const chosen = { scene: Object.keys(content.scenes)[0], step: undefined, anchor: undefined }

// The plane with every scene, step and anchor.
function plane() {
  const scene = content.scenes[chosen.scene], last = scene.steps.length - 1
  const number = chosen.step ?? last, step = scene.steps[number], anchor = chosen.anchor ?? scene.anchor
  const unit = unitOf(step.weights), seen = picture(EXTENT, `${scene.title}: what S and D accept around a point, at step ${step.step}`)
  const held = heldOut(scene, anchor)
  terrain(seen, unit, scene.points[anchor], step.threshold)
  scenePoints(seen, scene, { pick: row => { chosen.anchor = row; plane() } })
  circle(seen, scene.points[anchor], scene.radius)
  cross(seen, scene.points[anchor])
  const select = make("select", { id: "scene", onchange: event => { Object.assign(chosen, { scene: event.target.value, step: undefined, anchor: undefined }); plane() } })
  for (const [name, one] of Object.entries(content.scenes)) select.append(make("option", { value: name, ...(name === chosen.scene ? { selected: "" } : {}) }, one.title))
  const slider = make("input", { id: "step", type: "range", min: 0, max: last, value: number, "aria-valuetext": `step ${step.step}`, oninput: event => { chosen.step = +event.target.value; plane() } })
  const go = move => () => { chosen.anchor = held[(held.indexOf(anchor) + move + held.length) % held.length]; plane() }
  const rows = make("tbody")
  for (const [title, of] of [["S", step], ["D", scene.distance]])
    rows.append(make("tr", {}, make("th", { scope: "row" }, title), ...["known", "unseen"].flatMap(kind => of[kind].map(value => make("td", {}, value.toFixed(1))))))
  const heads = ["known, R@1", "known, TPR", "unseen, R@1", "unseen, TPR"].map(words => make("th", { scope: "col" }, words))
  const side = make("section", { "aria-labelledby": "title" },
    make("h2", { id: "title" }, content.parts.plane), make("label", {}, "Scene", select), make("p", {}, scene.summary),
    make("label", {}, `Training step ${step.step} of ${scene.steps[last].step}`, slider),
    make("p", { class: "row" }, make("button", { id: "back", onclick: go(-1) }, "Previous point"), make("button", { id: "forth", onclick: go(1) }, "Next point")),
    make("p", { "aria-live": "polite" }, accepted(scene, unit, anchor, step.threshold)),
    make("table", {}, make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "%"), ...heads)), rows),
    make("p", {}, "Click a point to see what is accepted around it. Small points train, large ones are held out; classes drawn open never train (unseen). S and D each accept 1 % of the pairs of two known classes; TPR is the share of the pairs of one class that they accept."),
  )
  const focused = document.activeElement?.id
  stage.className = ""
  stage.replaceChildren(make("div", {}, legend([["S", "S accepts"], ["D", "D accepts"]]), seen.svg), side)
  if (focused) document.getElementById(focused)?.focus()
}

// Held-out points of classes that train, or of those that don't, as the anchor's.
function heldOut(scene, anchor) {
  const kind = scene.kinds[anchor] === 2 ? 2 : 1
  return scene.points.map((_, row) => row).filter(row => scene.kinds[row] === kind)
}

// How many of them an anchor accepts.
function accepted(scene, unit, anchor, threshold) {
  const from = scene.points[anchor], others = heldOut(scene, anchor).filter(row => row !== anchor)
  const words = (name, accepts) => {
    const [own, rest] = [true, false].map(same => others.filter(row => (scene.labels[row] === scene.labels[anchor]) === same))
    return `${name} accepts ${own.filter(accepts).length} of ${own.length} points of its class and ${rest.filter(accepts).length} of ${rest.length} others.`
  }
  const byScore = row => score(unit, from, scene.points[row]) > threshold
  const byDistance = row => Math.hypot(from[0] - scene.points[row][0], from[1] - scene.points[row][1]) < scene.radius
  return `${words("S", byScore)} ${words("D", byDistance)}`
}

// ---- The way through the lesson; the part is in the address, so that the browser's back button works.

const SHOW = { pair: () => exercise("pair"), stripes: () => exercise("stripes"), regions: () => exercise("regions"), neighbourhoods, plane }

function goTo(name) {
  location.hash = name
}

function route() {
  const name = location.hash.slice(1) in SHOW ? location.hash.slice(1) : "pair"
  document.getElementById("parts").replaceChildren(...Object.entries(content.parts).map(([key, title]) =>
    make("button", { "data-part": key, "aria-current": key === name ? "step" : undefined, onclick: () => goTo(key) }, title)))
  SHOW[name]()
}

window.addEventListener("hashchange", route)
route()
