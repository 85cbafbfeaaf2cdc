// Progressive enhancement: sorting and filters. The report is complete without it.
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  table.querySelectorAll("th[data-sort]").forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const numeric = head.dataset.sort === "number";
      const up = head.hasAttribute("aria-sort") ? head.getAttribute("aria-sort") === "descending" : !numeric;
      table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = (row) => row.cells[column].dataset.value;
      const order = (a, b) => (numeric ? value(a) - value(b) : value(a).localeCompare(value(b)));
      body.append(...[...body.rows].sort((a, b) => (up ? order(a, b) : order(b, a))));
    });
  });
}

const filters = document.querySelector(".filters");
if (filters) {
  const rows = [...document.querySelectorAll("article.row:not(.first)")];
  const chosen = { outcome: "", kind: "" };
  const show = () => {
    let shown = 0;
    for (const row of rows) {
      row.hidden = Object.entries(chosen).some(([name, value]) => value && row.dataset[name] !== value);
      shown += !row.hidden;
    }
    filters.querySelector(".showing").textContent =
      shown === rows.length ? "" : shown ? `${shown} of ${rows.length} shown` : "No query matches both filters. Choose “All” or “Any operation”.";
  };
  for (const button of filters.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      const name = "outcome" in button.dataset ? "outcome" : "kind";
      chosen[name] = button.dataset[name];
      for (const other of button.parentElement.children) other.setAttribute("aria-pressed", other === button);
      show();
    });
  }
  filters.hidden = false;
}
