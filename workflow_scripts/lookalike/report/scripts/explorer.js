import { OUTCOMES, seen, unpack } from "./data.js";
import { finder, fromHash, nothing, toHash } from "./filters.js";
import { card } from "./cards.js";
import { enlarger } from "./enlarge.js";
import { filterBar } from "./bar.js";
import { longList } from "./list.js";
import { imageMap } from "./map.js";
import { make } from "./dom.js";
import { save } from "./save.js";
import { toCsv } from "./csv.js";

const KEYS = [
  ["j, k", "next, previous query"],
  ["d", "next query that the models disagree on"],
  ["1–9", "filters and Enter are about this model; again: about any"],
  ["Enter", "enlarge the query and a neighbor, side by side"],
  ["f, ← →", "there: flicker between the two; other neighbors"],
  ["/", "search"],
  ["?", "this list"],
];

/** Show all queries, with filters, in place of the few that are shown without scripts. */
export async function startExplorer() {
  const packed = document.getElementById("explorer-data");
  const section = document.getElementById("explorer");
  const few = section?.querySelector("noscript");
  if (!packed || !section || !few) return;
  let /** @type {import("./data.js").Data} */ data;
  try {
    const beside = /** @type {{lookalikeCases?: string}} */ (/** @type {unknown} */ (window)).lookalikeCases;
    const missing = document.getElementById("cases-missing");
    if (missing && !beside) missing.hidden = false;
    data = await unpack(packed.textContent || beside || "");
  } catch (error) {
    few.outerHTML = few.textContent ?? ""; // an old browser cannot unpack the data
    throw error;
  }
  const state = nothing();
  const find = finder(data);
  const enlarge = enlarger(data);
  const place = make("div", { class: "list" });
  const list = longList(place, (query) => card(data, query, toHash(nothing(), data.ids[query])));
  const bar = filterBar(data, state, () => change());
  const map = data.maps.length ? imageMap(data, state, () => change(), (query) => reach(query)) : null;
  const help = make(
    "dialog",
    { class: "help", "aria-label": "Keyboard shortcuts" },
    make("h3", {}, "Keyboard"),
    make(
      "dl",
      {},
      ...KEYS.map(([key, what]) => make("div", {}, make("dt", {}, make("kbd", {}, key)), make("dd", {}, what))),
    ),
    make("form", { method: "dialog" }, make("button", {}, "Close")),
  );
  const number = new Map(data.ids.slice(0, data.outcome.length).map((id, query) => [id, query]));
  let current = -1;

  /** @param {number} query @param {boolean} [focus] */
  function select(query, focus = true) {
    const element = list.reach(query);
    if (!element) return;
    document.querySelector(".row.current")?.classList.remove("current");
    element.classList.add("current");
    current = query;
    if (focus) element.focus({ preventScroll: true });
    element.scrollIntoView({ block: "nearest", behavior: "instant" });
  }

  function draw() {
    const shown = find(state);
    list.show(shown);
    bar.update(shown.length);
    map?.update(shown);
    if (!shown.includes(current)) current = -1;
  }

  function change() {
    draw();
    history.replaceState(null, "", toHash(state));
  }

  /** Show a query that the map shows. @param {number} query */
  function reach(query) {
    select(query);
    history.replaceState(null, "", toHash(state, data.ids[query]));
  }

  /** Show what the address says. */
  const follow = () => {
    const address = fromHash(location.hash);
    if (!address) return;
    Object.assign(state, nothing(), address.state);
    draw();
    const query = address.query === null ? undefined : number.get(address.query);
    section.scrollIntoView({ behavior: "instant" });
    if (query !== undefined) {
      if (!list.queries().includes(query)) {
        Object.assign(state, nothing());
        draw();
      }
      select(query);
    }
  };

  function download() {
    save(`${data.experiment}-queries.csv`, toCsv(data, list.queries()), "text/csv");
  }

  /** @param {number} query */
  function firstHit(query) {
    const chosen = data.models.findIndex(({ model }) => model === state.model);
    return Math.max(0, chosen < 0 ? data.models.findIndex((_, model) => seen(data, query, model).hits.length) : chosen);
  }

  /** @param {number} by @param {(query: number) => boolean} [wanted] */
  function move(by, wanted = () => true) {
    const queries = list.queries();
    for (let at = queries.indexOf(current) + by; at >= 0 && at < queries.length; at += by) {
      if (wanted(queries[at])) return select(queries[at]);
    }
  }

  /** @param {KeyboardEvent} event */
  function press(event) {
    const target = /** @type {HTMLElement} */ (event.target);
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (target.closest("input, select, textarea")) {
      if (event.key === "Escape") target.blur();
      return;
    }
    if (event.key === "j") move(1);
    else if (event.key === "k") move(-1);
    else if (event.key === "d") move(1, (query) => OUTCOMES[data.outcome[query]] === "disagree");
    else if (event.key === "/") bar.text.focus();
    else if (event.key === "?") help.showModal();
    else if (event.key === "Enter" && target.matches(".row") && current >= 0) enlarge(current, firstHit(current), 0);
    else if (/^[1-9]$/.test(event.key) && data.models[Number(event.key) - 1]) {
      const { model } = data.models[Number(event.key) - 1];
      state.model = state.model === model ? "" : model;
      const before = current;
      change();
      if (before >= 0) select(before);
    } else return;
    event.preventDefault();
  }

  place.addEventListener("click", (event) => {
    const target = /** @type {HTMLElement} */ (event.target);
    const row = /** @type {HTMLElement | null} */ (target.closest(".row"));
    const hit = /** @type {HTMLElement | null} */ (target.closest(".hit"));
    if (!row) return;
    select(Number(row.dataset.query), !target.closest("a, button"));
    if (hit) enlarge(Number(row.dataset.query), Number(hit.dataset.model), Number(hit.dataset.hit));
  });
  document.addEventListener("keydown", press);
  addEventListener("hashchange", follow);
  bar.csv.addEventListener("click", download);
  bar.help.addEventListener("click", () => help.showModal());
  few.replaceWith(bar.element, ...(map ? [map.element] : []), place);
  document.body.append(help);
  draw();
  follow();
  performance.mark("explorer ready");
  Object.assign(window, {
    lookalike: { queries: data.outcome.filter((code) => OUTCOMES[code] !== "showcase").length },
  });
}
