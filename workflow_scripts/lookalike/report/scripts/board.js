import { make } from "./dom.js";

/** Sort the boards by a column, unfold the other indexes of a model, and compare two models. */
export function startBoard() {
  for (const element of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("#board .js-only")))
    element.hidden = false;
  for (const table of /** @type {NodeListOf<HTMLTableElement>} */ (document.querySelectorAll("table.sortable"))) {
    sortable(table);
    fold(table);
  }
  const panes = /** @type {HTMLElement | null} */ (document.querySelector("#board .compared"));
  if (panes) comparable(panes);
}

/**
 * Give each column a button that sorts by it. A model's rows, of which there is one for each index, stay together. The
 * verdicts shown are those of the column.
 *
 * @param {HTMLTableElement} table
 */
function sortable(table) {
  /** @type {NodeListOf<HTMLElement>} */ (table.querySelectorAll("th[data-sort]")).forEach((head) => {
    const column = /** @type {HTMLTableCellElement} */ (head).cellIndex;
    const button = make("button", { type: "button" }, ...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const numeric = head.dataset.sort === "number";
      const up = head.hasAttribute("aria-sort") ? head.getAttribute("aria-sort") === "descending" : !numeric;
      table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = (/** @type {HTMLTableSectionElement} */ body) => body.rows[0].cells[column].dataset.value ?? "";
      const order = (/** @type {HTMLTableSectionElement} */ a, /** @type {HTMLTableSectionElement} */ b) =>
        numeric ? Number(value(a)) - Number(value(b)) : value(a).localeCompare(value(b));
      table.append(...[...table.tBodies].sort((a, b) => (up ? order(a, b) : order(b, a))));
      if (head.dataset.key === "model") return;
      for (const verdict of /** @type {NodeListOf<HTMLElement>} */ (table.querySelectorAll("[data-by]")))
        verdict.hidden = verdict.dataset.by !== head.dataset.key;
    });
  });
}

/** @param {HTMLTableElement} table */
function fold(table) {
  for (const button of /** @type {NodeListOf<HTMLButtonElement>} */ (table.querySelectorAll("button.fold"))) {
    const rows = /** @type {HTMLElement[]} */ ([...(button.closest("tbody")?.querySelectorAll(".folded") ?? [])]);
    const show = (/** @type {boolean} */ open) => {
      button.setAttribute("aria-expanded", String(open));
      for (const row of rows) row.hidden = !open;
    };
    button.addEventListener("click", () => show(button.getAttribute("aria-expanded") === "false"));
    show(false);
  }
}

/**
 * Show the comparison of the two models that were selected last; it is a copy of the appendix's.
 *
 * @param {HTMLElement} pane
 */
function comparable(pane) {
  const boxes = /** @type {HTMLInputElement[]} */ ([...document.querySelectorAll("#board .pick input")]);
  /** @type {string[]} */
  let picked = [];
  /** @param {string} model @param {boolean} on */
  function pick(model, on) {
    picked = [...picked.filter((other) => other !== model), ...(on ? [model] : [])].slice(-2);
    for (const box of boxes) box.checked = picked.includes(box.value);
    const [low, high] = picked.map(Number).sort((x, y) => x - y);
    const pair = document.getElementById(`pair-${low}-${high}`);
    const close = make("button", { type: "button", class: "close" }, "Close");
    close.addEventListener("click", () => {
      for (const one of [...picked]) pick(one, false);
    });
    pane.hidden = picked.length < 2;
    pane.replaceChildren();
    if (pane.hidden) return;
    const heading = make("h3", {}, ...(pair?.querySelector("summary")?.cloneNode(true).childNodes ?? ["Two models"]));
    const body = pair?.querySelector("div")?.cloneNode(true) ?? make("p", {}, "These two models were not compared.");
    pane.append(make("div", { class: "compared-head" }, heading, close), body);
    for (const dead of pane.querySelectorAll(".save")) dead.remove(); // a copied button does nothing
    pane.scrollIntoView({ block: "nearest" });
  }
  for (const box of boxes) box.addEventListener("change", () => pick(box.value, box.checked));
}
