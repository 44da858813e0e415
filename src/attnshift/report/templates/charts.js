"use strict"

/* Curves over iterations, drawn as SVG. A line differs from the others by its dashes, also without colours. */
const CHART = { width: 360, height: 190, left: 44, right: 352, top: 8, bottom: 166 }
const DASHES = ["", "7 4", "2 3", "10 3 2 3", "5 2", "1 4"]

function drawn(name, attributes = {}, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name)
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  if (text) made.textContent = text
  return made
}

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name)
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  made.append(...children)
  return made
}

function ticksOf(low, high, count) {
  const rough = (high - low) / count || 1
  const power = 10 ** Math.floor(Math.log10(rough))
  const step = [1, 2, 5, 10].map(each => each * power).find(each => each >= rough)
  const ticks = []
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at++) ticks.push(Number((at * step).toPrecision(12)))
  return ticks
}

function figure(value) {
  if (value === null || value === undefined) return "–"
  const size = Math.abs(value)
  return size !== 0 && (size < 0.001 || size >= 10000) ? value.toExponential(1) : String(Number(value.toPrecision(3)))
}

/* Draws `series`, name -> values at the iterations `at`, into the figure `host`. A value may be null. */
function drawCurves(host, series, at) {
  const names = Object.keys(series)
  const values = names.flatMap(name => series[name]).filter(each => each !== null)
  if (!values.length) return
  const low = Math.min(0, ...values), high = Math.max(0, ...values)
  const room = (high - low || 1) * 0.04
  const first = at[0], last = at[at.length - 1]
  const x = each => last === first ? CHART.left : CHART.left + (each - first) / (last - first) * (CHART.right - CHART.left)
  const y = each => CHART.bottom - (each - low + room) / (high - low + 2 * room || 1) * (CHART.bottom - CHART.top)
  const title = host.querySelector("figcaption")?.textContent ?? "curves"
  const svg = drawn("svg", { viewBox: `0 0 ${CHART.width} ${CHART.height}`, role: "img", "aria-label": `${title}: ${names.join(", ")}` })
  for (const tick of ticksOf(low, high, 4)) {
    svg.append(drawn("path", { class: tick === 0 ? "zero" : "grid", d: `M${CHART.left} ${y(tick)}H${CHART.right}` }))
    svg.append(drawn("text", { x: CHART.left - 6, y: y(tick) + 4, "text-anchor": "end" }, figure(tick)))
  }
  for (const tick of ticksOf(first, last, 6).filter(Number.isInteger))
    svg.append(drawn("text", { x: x(tick), y: CHART.bottom + 18, "text-anchor": "middle" }, String(tick)))
  names.forEach((name, place) => {
    const points = series[name].map((value, index) => value === null ? "" : `${x(at[index]).toFixed(1)},${y(value).toFixed(1)}`)
    const style = { stroke: `var(--series-${place % 6})`, "stroke-dasharray": DASHES[place % 6] }
    if (points.length === 1) svg.append(drawn("circle", { cx: x(at[0]), cy: y(series[name][0]), r: 3, fill: style.stroke }))
    else svg.append(drawn("polyline", { points: points.join(" "), ...style }))
  })
  const legend = element("ul")
  const told = names.map((name, place) => {
    const sign = drawn("svg", { viewBox: "0 0 22 8", "aria-hidden": "true" })
    sign.append(drawn("path", { d: "M0 4H22", stroke: `var(--series-${place % 6})`, "stroke-width": 2, "stroke-dasharray": DASHES[place % 6] }))
    const value = element("span", { class: "number soft" })
    legend.append(element("li", {}, sign, name, " ", value))
    return value
  })
  const cursor = drawn("path", { class: "cursor" })
  svg.append(cursor)
  const tell = index => {
    told.forEach((each, place) => { each.textContent = figure(series[names[place]][index]) })
    cursor.setAttribute("d", index === at.length - 1 ? "" : `M${x(at[index])} ${CHART.top}V${CHART.bottom}`)
  }
  svg.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect()
    const wanted = (event.clientX - box.left) / box.width * CHART.width
    tell(at.reduce((best, each, index) => Math.abs(x(each) - wanted) < Math.abs(x(at[best]) - wanted) ? index : best, 0))
  })
  svg.addEventListener("pointerleave", () => tell(at.length - 1))
  tell(at.length - 1)
  host.append(svg, legend)
}
