"use strict"

/* A table that is wider than its place says so, until its last column has been seen. */
for (const place of document.querySelectorAll(".scroll")) {
  const hint = document.createElement("p")
  hint.className = "more"
  hint.textContent = "The table goes on to the right: scroll it sideways →"
  place.before(hint)
  const look = () => { hint.hidden = place.scrollWidth - place.clientWidth - place.scrollLeft <= 8 }
  place.addEventListener("scroll", look, { passive: true })
  new ResizeObserver(look).observe(place)
}

/* A heading of a table of the class "sortable" sorts it; a cell may state its value in data-value. */
function valueOf(row, column) {
  const cell = row.cells[column]
  const text = cell.dataset.value ?? cell.textContent.trim()
  const number = Number(text)
  return text !== "" && !Number.isNaN(number) ? number : text
}

/* What is no number stands last, whatever the direction. */
function compareValues(a, b, sign) {
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1
  return sign * (typeof a === "number" ? a - b : a.localeCompare(b))
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells]
  heads.forEach((head, column) => {
    const button = document.createElement("button")
    button.type = "button"
    button.textContent = head.textContent
    head.replaceChildren(button)
    button.addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") !== "descending"
      heads.forEach(each => each.removeAttribute("aria-sort"))
      head.setAttribute("aria-sort", falling ? "descending" : "ascending")
      const rows = [...table.tBodies[0].rows]
      rows.sort((a, b) => compareValues(valueOf(a, column), valueOf(b, column), falling ? -1 : 1))
      table.tBodies[0].append(...rows)
    })
  })
}
