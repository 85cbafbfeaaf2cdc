/** Give each column of a table with class "sortable" a button that sorts by it. */
export function sortTables() {
  for (const table of /** @type {NodeListOf<HTMLTableElement>} */ (document.querySelectorAll("table.sortable"))) {
    const body = table.tBodies[0];
    /** @type {NodeListOf<HTMLElement>} */ (table.querySelectorAll("th[data-sort]")).forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const numeric = head.dataset.sort === "number";
        const up = head.hasAttribute("aria-sort") ? head.getAttribute("aria-sort") === "descending" : !numeric;
        table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const value = (/** @type {HTMLTableRowElement} */ row) => row.cells[column].dataset.value ?? "";
        const order = (/** @type {HTMLTableRowElement} */ a, /** @type {HTMLTableRowElement} */ b) =>
          numeric ? Number(value(a)) - Number(value(b)) : value(a).localeCompare(value(b));
        body.append(...[...body.rows].sort((a, b) => (up ? order(a, b) : order(b, a))));
      });
    });
  }
}
