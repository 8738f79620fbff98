// Sorting by a header's button. Missing values stay last in both directions.
function sortTable(table, head, order) {
  const column = head.cellIndex;
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  // A line that is not ranked has one wide cell in place of figures.
  const key = (row) => {
    const cell = row.cells[column];
    return cell ? (cell.dataset.v ?? cell.textContent.trim()) : "";
  };
  const compare = (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === "" || y === "") return (x === "") - (y === "");
    const [p, q] = [Number(x), Number(y)];
    return sign * (isNaN(p) || isNaN(q) ? x.localeCompare(y, "en") : p - q);
  };
  const body = table.tBodies[0];
  body.append(...[...body.rows].sort(compare));
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const head of table.tHead.rows[0].cells) {
    head.querySelector("button")?.addEventListener("click", () => {
      const first = head.dataset.first || "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      sortTable(table, head, head.getAttribute("aria-sort") === first ? other : first);
      table.dispatchEvent(new Event("sorted"));
    });
  }
}

addEventListener("beforeprint", () => document.querySelectorAll("main details:not(.facet)").forEach((d) => (d.open = true)));
