import { OUTCOMES, RANK, SCORE, confidences, seen, verdict } from "./data.js";
import { areaOf, inArea, mapOf } from "./places.js";

/**
 * @typedef {import("./data.js").Data} Data
 *
 * @typedef {object} State  what is shown, as in the page's address; "" everywhere: all queries
 * @property {string} text
 * @property {string} outcome
 * @property {string} kind
 * @property {string} a  the model that is right where `b` is wrong
 * @property {string} b
 * @property {string} model  which model rank, margin, accepted and rejected are about; "" for any
 * @property {string} rank
 * @property {string} margin
 * @property {string} accepted
 * @property {string} rejected
 * @property {string} scene
 * @property {string} map  the model whose map `area` is on; "" for that of the model that finds most
 * @property {string} area
 * @property {string} sort
 * @property {Record<string, string>} verdicts  model -> right, wrong or rejected
 * @property {Record<string, string>} columns  by_* column -> value
 */

export const SORTS = {
  "": "Most confident mistakes",
  close: "Smallest margin",
  misses: "Most models wrong",
  id: "Id",
};
const NAMES = /** @type {const} */ ([
  "text",
  "outcome",
  "kind",
  "a",
  "b",
  "model",
  "rank",
  "margin",
  "accepted",
  "rejected",
  "scene",
  "map",
  "area",
  "sort",
]);
const PREFIX = "#explorer?";

/** @returns {State} */
export function nothing() {
  const empty = Object.fromEntries(NAMES.map((name) => [name, ""]));
  return /** @type {State} */ (/** @type {unknown} */ ({ ...empty, verdicts: {}, columns: {} }));
}

/**
 * The address of a state and, perhaps, one query.
 *
 * @param {State} state
 * @param {string} [query]
 */
export function toHash(state, query) {
  const pairs = new URLSearchParams();
  for (const name of NAMES) if (state[name]) pairs.set(name, state[name]);
  for (const [model, value] of Object.entries(state.verdicts)) if (value) pairs.set(`is.${model}`, value);
  for (const [column, value] of Object.entries(state.columns)) if (value) pairs.set(column, value);
  if (query !== undefined) pairs.set("query", query);
  return PREFIX + pairs.toString();
}

/**
 * @param {string} hash
 * @returns {{state: State, query: string | null} | null} null if the address is not the explorer's
 */
export function fromHash(hash) {
  if (!hash.startsWith(PREFIX)) return null;
  const state = nothing();
  let query = null;
  for (const [name, value] of new URLSearchParams(hash.slice(PREFIX.length))) {
    if (name === "query") query = value;
    else if (name.startsWith("is.")) state.verdicts[name.slice(3)] = value;
    else if (name.startsWith("by_")) state.columns[name] = value;
    else if (NAMES.includes(/** @type {any} */ (name))) state[/** @type {"text"} */ (name)] = value;
  }
  return { state, query };
}

/**
 * Queries that a state shows, in its order; showcase images come first.
 *
 * @param {Data} data
 */
export function finder(data) {
  const sure = confidences(data);
  const accepted = data.models.map((model) => new Set(model.accepted));
  const number = new Map(data.models.map((model, place) => [model.model, place]));
  const words = data.outcome.map((_, query) =>
    [data.ids[query], data.operations.values[data.operations.of[query]] ?? "", data.captions[query] ?? ""]
      .join("\n")
      .toLowerCase(),
  );
  const all = data.outcome.map((_, query) => query);
  const first = OUTCOMES.indexOf("showcase");

  /**
   * Whether a model's first neighbor is wrong. Without any known answer, nothing is.
   *
   * @param {number} query
   * @param {number} model
   */
  const mistaken = (query, model) =>
    data.known &&
    data.outcome[query] !== first &&
    data.models[model].rank[query] !== 1 &&
    data.models[model].scores[query * data.shown] != null;

  /** @param {State} state */
  const scope = (state) =>
    number.has(state.model) ? [/** @type {number} */ (number.get(state.model))] : data.models.map((_, place) => place);

  /** @param {State} state @returns {(query: number) => boolean} */
  function test(state) {
    /** @type {((query: number) => boolean)[]} */
    const tests = [];
    const models = scope(state);
    for (const word of state.text.toLowerCase().split(/\s+/).filter(Boolean))
      tests.push((query) => words[query].includes(word));
    if (state.outcome) tests.push((query) => OUTCOMES[data.outcome[query]] === state.outcome);
    if (state.kind) tests.push((query) => data.kinds.values[data.kinds.of[query]] === state.kind);
    for (const column of data.columns) {
      const value = state.columns[column.name];
      if (value) tests.push((query) => column.values[column.of[query]] === value);
    }
    // As in the metrics, a rejected query is a miss.
    const missed = (/** @type {number} */ query, /** @type {number} */ model) =>
      data.matches[query].length > 0 && verdict(data, query, model) !== "right";
    for (const [name, value] of [...Object.entries(state.verdicts), [state.a, "right"], [state.b, "wrong"]]) {
      const model = number.get(name);
      if (model !== undefined && value)
        tests.push((query) => (value === "wrong" ? missed(query, model) : verdict(data, query, model) === value));
    }
    if (state.rank) {
      const [from, to] = state.rank === "beyond" ? [RANK.notFound, RANK.notFound] : state.rank.split("-").map(Number);
      tests.push((query) =>
        models.some(
          (model) => data.models[model].rank[query] >= from && data.models[model].rank[query] <= (to ?? from),
        ),
      );
    }
    const most = Number(state.margin);
    if (state.margin !== "" && !Number.isNaN(most)) {
      tests.push((query) =>
        models.some((model) => {
          const margin = data.models[model].margin[query];
          return margin !== null && Math.abs(margin) <= most * SCORE;
        }),
      );
    }
    if (state.accepted)
      tests.push((query) => models.some((model) => mistaken(query, model) && accepted[model].has(query)));
    if (state.rejected) tests.push((query) => models.some((model) => data.models[model].rank[query] === RANK.rejected));
    if (state.scene) tests.push((query) => models.some((model) => seen(data, query, model).hits[0]?.scene));
    const area = areaOf(state.area);
    if (area && data.maps.length) {
      const inside = inArea(data, mapOf(data, state), area);
      tests.push((query) => inside.has(query));
    }
    return (query) => tests.every((one) => one(query));
  }

  /** @param {State} state @returns {number[]} the lower the earlier */
  function keys(state) {
    const models = scope(state);
    if (state.sort === "close")
      return all.map((query) =>
        Math.min(...models.map((model) => Math.abs(data.models[model].margin[query] ?? Infinity))),
      );
    if (state.sort === "misses") return all.map((query) => -models.filter((model) => mistaken(query, model)).length);
    if (state.sort === "id") return all.map(() => 0);
    return all.map(
      (query) => -Math.max(...models.map((model) => (!data.known || mistaken(query, model) ? sure[model][query] : -1))),
    );
  }

  /** @param {State} state */
  return function find(state) {
    const key = keys(state);
    const shown = all.filter(test(state));
    const later = (/** @type {number} */ query) => (data.outcome[query] === first ? 0 : 1);
    return shown.sort((x, y) => later(x) - later(y) || key[x] - key[y] || (data.ids[x] < data.ids[y] ? -1 : 1));
  };
}
