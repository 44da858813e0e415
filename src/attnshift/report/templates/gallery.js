"use strict"

/* The grid of all images, and the window that shows one of them. Names are of users: they become text, never markup. */
const DATA = JSON.parse(document.getElementById("data").textContent)
const at = id => document.getElementById(id)
const COUNT = DATA.id.length
const PAGE = 48
const OUTCOMES = { f: "fooled", k: "still right", m: "not the target", w: "wrong when clean", "-": "not asked" }
const CLASSES = { f: "fooled", k: "kept", m: "missed", w: "wrong-before", "-": "soft" }
const nameOf = number => DATA.names[number]
const imageFile = (image, arm) => `images/${encodeURIComponent(DATA.id[image])}.${arm}.png`
const known = DATA.outcomes.map(each => DATA.deciding.filter(place => !"w-".includes(each[place])).length)
const fooled = DATA.outcomes.map(each => DATA.deciding.filter(place => each[place] === "f").length)
const share = image => known[image] ? fooled[image] / known[image] : -1

document.querySelectorAll("[data-curves]").forEach(host => {
  const each = DATA.curves[host.dataset.curves]
  drawCurves(host, each.series, each.at)
})

/* Choices of the form */
function option(value, text = value) { return element("option", { value }, text) }

function fill(select, all, texts) {
  select.replaceChildren(option("", all), ...texts.map(text => option(text)))
}

const namesOf = column => [...new Set(column)].map(nameOf).filter(Boolean).sort((a, b) => a.localeCompare(b))
fill(at("class"), "any", namesOf(DATA.class))
fill(at("seen"), "any", namesOf(DATA.seen))
at("outcome").append(option("", "any"))
if (DATA.deciding.length) {
  at("outcome").append(option("all", "fools all"), option("most", "fools at least half"), option("some", "fools some"), option("none", "fools none"))
  DATA.classifiers.forEach(([called, role], place) => {
    at("outcome").append(option(`f${place}`, `fools ${called} (${role})`), option(`k${place}`, `${called} still right`))
  })
}
const ORDERS = { "": ["order of the run", image => image, 1] }
if (DATA.deciding.length) ORDERS.fooled = ["most fooled first", share, -1]
for (const [metric, values] of Object.entries(DATA.values)) {
  ORDERS[`${metric} up`] = [`${metric}, lowest first`, image => values[image] ?? Infinity, 1]
  ORDERS[`${metric} down`] = [`${metric}, highest first`, image => values[image] ?? -Infinity, -1]
}
ORDERS.class = ["true class", image => nameOf(DATA.class[image]), 1]
ORDERS.file = ["file", image => DATA.file[image], 1]
for (const [key, [text]] of Object.entries(ORDERS)) at("sort").append(option(key, text))

function fits(image, words, trueClass, seenClass, outcome) {
  if (words && !`${DATA.file[image]} ${nameOf(DATA.class[image])}`.toLowerCase().includes(words)) return false
  if (trueClass && nameOf(DATA.class[image]) !== trueClass) return false
  if (seenClass && nameOf(DATA.seen[image]) !== seenClass) return false
  if (outcome === "all") return known[image] > 0 && fooled[image] === known[image]
  if (outcome === "most") return known[image] > 0 && 2 * fooled[image] >= known[image]
  if (outcome === "some") return fooled[image] > 0
  if (outcome === "none") return known[image] > 0 && fooled[image] === 0
  return !outcome || DATA.outcomes[image][Number(outcome.slice(1))] === outcome[0]
}

let shown = [], page = 0

function choose() {
  const words = at("search").value.trim().toLowerCase()
  const [, key, sign] = ORDERS[at("sort").value]
  const asked = [at("class").value, at("seen").value, at("outcome").value]
  const found = []
  for (let image = 0; image < COUNT; image++) if (fits(image, words, ...asked)) found.push([key(image), image])
  found.sort(([a, first], [b, second]) => sign * (typeof a === "string" ? a.localeCompare(b) : a === b ? 0 : a - b) || first - second)
  shown = found.map(([, image]) => image)
  page = 0
  draw()
}

function changed(image) {
  const place = element("span", { class: "change" })
  place.style.filter = `brightness(${255 / Math.max(1, DATA.largest[image])}) url(#magnitude)`
  for (const arm of ["clean", "attack"]) place.append(element("img", { src: imageFile(image, arm), loading: "lazy", alt: "" }))
  place.setAttribute("role", "img")
  place.setAttribute("aria-label", "where the image was changed")
  return place
}

function tile(image) {
  const twin = element("span", { class: "twin" }, element("img", { src: imageFile(image, "clean"), loading: "lazy", alt: "clean image" }))
  twin.append(at("look").value === "change" ? changed(image) : element("img", { src: imageFile(image, "attack"), loading: "lazy", alt: "adversarial image" }))
  const told = element("span", { class: "told" }, element("b", {}, nameOf(DATA.class[image])))
  const aim = nameOf(DATA.aim[image]), seen = nameOf(DATA.seen[image])
  if (seen) told.append(` → ${seen}`)
  const facts = known[image] ? [`${fooled[image]} of ${known[image]} fooled`] : []
  if (DATA.values.ssim) facts.push(`SSIM ${figure(DATA.values.ssim[image])}`)
  if (at("look").value === "change") facts.push(`brightest ${DATA.largest[image]} of 255`)
  if (aim && aim !== seen) facts.push(`towards ${aim}`)
  told.append(element("small", {}, facts.join(" · ")), element("small", {}, DATA.file[image]))
  return element("button", { class: "tile", type: "button", "data-image": image }, twin, told)
}

function draw() {
  const pages = Math.max(1, Math.ceil(shown.length / PAGE))
  page = Math.max(0, Math.min(page, pages - 1))
  at("grid").replaceChildren(...shown.slice(page * PAGE, (page + 1) * PAGE).map(tile))
  at("count").textContent = shown.length === COUNT ? `${COUNT} images` : `${shown.length} of ${COUNT} images`
  at("page").textContent = `${page + 1} / ${pages}`
  for (const suffix of ["", "-2"]) {
    at(`earlier${suffix}`).disabled = page === 0
    at(`later${suffix}`).disabled = page === pages - 1
  }
}

at("filters").addEventListener("input", event => event.target === at("look") ? draw() : choose())
at("filters").addEventListener("submit", event => event.preventDefault())
at("clear").addEventListener("click", () => { at("filters").reset(); choose() })
for (const suffix of ["", "-2"]) {
  const turn = step => () => { page += step; draw(); if (suffix) at("images").scrollIntoView() }
  at(`earlier${suffix}`).addEventListener("click", turn(-1))
  at(`later${suffix}`).addEventListener("click", turn(1))
}
document.querySelectorAll("[data-filter]").forEach(link => link.addEventListener("click", () => {
  at("filters").reset()
  if (link.dataset.class) at("class").value = link.dataset.class
  at(link.dataset.filter).value = link.dataset.name
  choose()
}))

/* Parts: what the page does not hold is loaded with the first image that needs it. */
const waiting = new Map(), parts = new Map()

function takePart(number, images) { parts.set(number, images) }

function partOf(image) {
  const number = Math.floor(image / DATA.part)
  if (!waiting.has(number)) waiting.set(number, new Promise((done, failed) => {
    const script = element("script", { src: DATA.parts[number] })
    script.addEventListener("load", () => done(parts.get(number)))
    script.addEventListener("error", () => { waiting.delete(number); failed(new Error(`${DATA.parts[number]} is missing`)) })
    document.head.append(script)
  }))
  return waiting.get(number).then(images => images[image % DATA.part])
}

/* One image */
function slider(image) {
  const place = element("div", { class: "slider" })
  const clean = element("img", { src: imageFile(image, "clean"), alt: "clean image" })
  const attack = element("img", { src: imageFile(image, "attack"), alt: "adversarial image" })
  const range = element("input", { type: "range", min: 0, max: 1000, value: 500, "aria-label": "clean image on the left, adversarial one on the right" })
  const move = () => place.style.setProperty("--at", `${range.value / 10}%`)
  range.addEventListener("input", move)
  move()
  place.append(clean, attack, range)
  const room = element("div", { class: "window" }, place)
  const zoom = element("div", { class: "zoom" }, "before | after, ")
  const set = (factor, button) => {
    place.style.width = `${factor * clean.naturalWidth}px`
    place.style.height = `${factor * clean.naturalHeight}px`
    zoom.querySelectorAll("button").forEach(each => each.setAttribute("aria-pressed", String(each === button)))
  }
  clean.decode().then(() => {
    const fitting = Math.floor(Math.min(448, document.documentElement.clientWidth - 48) / clean.naturalWidth)
    const usual = fitting >= 4 ? 4 : fitting >= 2 ? 2 : 1
    for (const factor of [1, 2, 4, 8]) {
      const button = element("button", { type: "button" }, factor === 1 ? "true size" : `× ${factor}`)
      button.addEventListener("click", () => set(factor, button))
      zoom.append(button)
      if (factor === usual) set(factor, button)
    }
    zoom.append(` ${clean.naturalWidth} × ${clean.naturalHeight} pixels`)
  }, () => zoom.append("the file is missing"))
  return element("div", {}, room, zoom)
}

function heat(image, arm, map) {
  const bytes = Uint8Array.from(atob(map.bytes), each => each.charCodeAt(0))
  const canvas = element("canvas", { width: map.columns, height: map.rows })
  const pixels = new ImageData(map.columns, map.rows)
  bytes.forEach((level, place) => pixels.data.set([level, level * 0.59, level * 0.08, 255], 4 * place))
  canvas.getContext("2d").putImageData(pixels, 0, 0)
  return element("span", { class: "heat" }, element("img", { src: imageFile(image, arm), alt: "" }), canvas)
}

function captioned(picture, ...words) { return element("figure", {}, picture, element("figcaption", {}, ...words)) }

function maps(image, found) {
  const place = element("div", { class: "maps" })
  const largest = DATA.largest[image]
  const change = captioned(changed(image), element("span", { class: "scale" }), `where it changed: black is unchanged, the brightest is ${largest} of 255 levels, its largest change`)
  change.className = "one"
  place.append(change)
  for (const [title, both] of found) {
    const pair = both.maps.map((bytes, index) => heat(image, index ? "attack" : "clean", { rows: both.rows, columns: both.columns, bytes }))
    place.append(captioned(element("span", { class: "twin" }, ...pair), `before and after: ${title}`))
  }
  return place
}

function table(heads, rows, kind = "") {
  const body = rows.map(row => element("tr", {}, ...row.map(cell => element("td", {}, cell ?? "–"))))
  const head = element("tr", {}, ...heads.map(each => element("th", {}, each)))
  return element("div", { class: "scroll" }, element("table", { class: kind }, element("thead", {}, head), element("tbody", {}, ...body)))
}

const percent = value => `${Math.round(100 * value)} %`

function answers(image, found) {
  const rows = DATA.classifiers.map(([called, role], place) => {
    const letter = DATA.outcomes[image][place], answer = found.verdicts[place]
    const [clean, cleanShare, attack, attackShare] = answer ?? []
    const who = element("span", {}, called, " ", element("small", { class: "soft" }, role))
    return answer
      ? [who, element("span", { class: CLASSES[letter] }, OUTCOMES[letter]), `${attack} ${percent(attackShare)}`, `${clean} ${percent(cleanShare)}`]
      : [who, OUTCOMES[letter], null, null]
  })
  return table(["classifier", "outcome", "sees after", "saw before"], rows)
}

function curves(title, series, every) {
  const host = element("figure", { class: "chart" }, element("figcaption", {}, title))
  const longest = Math.max(0, ...Object.values(series).map(each => each.length))
  if (longest) drawCurves(host, series, [...Array(longest).keys()].map(each => each * every))
  return longest ? [host] : []
}

function detailOf(image, found) {
  const facts = Object.entries(DATA.values).map(([metric, values]) => `${metric} ${figure(values[image])}`)
  if (found.iterate[1]) facts.unshift(`iterate ${found.iterate[0]} of ${found.iterate[1]}`)
  if (found.models !== null) facts.push(`${figure(found.models)} effective models`)
  if (found.interference) facts.push(`attention towards ${found.interference}`)
  const files = element("p", { class: "small" }, "Files: ")
  DATA.arms.forEach((arm, place) => files.append(place ? ", " : "", element("a", { href: imageFile(image, arm) }, arm.replace("_", " "))))
  const body = [
    element("p", { class: "small soft" }, `${DATA.file[image]} · ${facts.join(" · ")}`),
    element("div", { class: "sides" }, slider(image), maps(image, found.maps)),
  ]
  if (DATA.classifiers.length) body.push(element("h3", {}, "What each classifier says"), answers(image, found))
  const drawnCurves = [...curves("weighted losses by iteration", found.losses, found.every), ...curves("margins by iteration, in logits", found.margins, found.every)]
  if (drawnCurves.length) body.push(element("h3", {}, "How the attack went"), element("div", { class: "charts" }, ...drawnCurves))
  if (found.layers.length)
    body.push(element("h3", {}, "Attention to the class's phrase, by layer"), table(["layer", "mass before", "after", "total variation"], found.layers.map(([layer, ...values]) => [layer, ...values.map(figure)]), "layers"))
  return [...body, files]
}

let opened = -1

function show(image) {
  opened = image
  const aim = nameOf(DATA.aim[image]), seen = nameOf(DATA.seen[image])
  at("detail-name").textContent = nameOf(DATA.class[image]) + (seen ? ` → ${seen}` : "") + (aim && aim !== seen ? ` (towards ${aim})` : "")
  const place = shown.indexOf(image)
  at("before-it").disabled = place <= 0
  at("after-it").disabled = place < 0 || place === shown.length - 1
  if (!at("detail").open) at("detail").showModal()
  partOf(image).then(
    found => { if (opened === image) { at("detail-body").replaceChildren(...detailOf(image, found)); at("detail").scrollTop = 0 } },
    error => at("detail-body").replaceChildren(element("p", {}, `${error.message}: copy the folder report beside this page as well.`)),
  )
  history.replaceState(null, "", `#image-${DATA.id[image]}`)
}

function step(by) {
  const place = shown.indexOf(opened) + by
  if (place >= 0 && place < shown.length && shown.includes(opened)) show(shown[place])
}

document.addEventListener("click", event => {
  const found = event.target.closest("[data-image]")
  if (found) show(Number(found.dataset.image))
})
at("close").addEventListener("click", () => at("detail").close())
at("detail").addEventListener("click", event => { if (event.target === at("detail")) at("detail").close() })
at("detail").addEventListener("close", () => history.replaceState(null, "", "#images"))
at("before-it").addEventListener("click", () => step(-1))
at("after-it").addEventListener("click", () => step(1))
at("detail").addEventListener("keydown", event => {
  if (event.target.type === "range") return
  if (event.key === "ArrowLeft") step(-1)
  if (event.key === "ArrowRight") step(1)
})

choose()
const asked = DATA.id.indexOf(location.hash.replace("#image-", ""))
if (asked >= 0) show(asked)
