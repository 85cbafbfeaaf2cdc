import { OUTCOMES } from "./data.js";
import { make } from "./dom.js";
import { SORTS, nothing } from "./filters.js";
import { areaOf, inArea, mapOf } from "./places.js";

/** @typedef {import("./filters.js").State} State */

const format = (/** @type {number} */ count) => count.toLocaleString("en-US");

/**
 * @param {number[]} of
 * @param {number} code
 */
const count = (of, code) => of.filter((value) => value === code).length;

/**
 * The filters. They read from `state` and call `changed` when they wrote to it.
 *
 * @param {import("./data.js").Data} data
 * @param {State} state
 * @param {() => void} changed
 */
export function filterBar(data, state, changed) {
  /** @type {(() => void)[]} */
  const updates = [];

  /**
   * @param {string} label
   * @param {[string, string][]} options  value and name
   * @param {() => string} get
   * @param {(value: string) => void} set
   */
  function select(label, options, get, set) {
    const field = make("select", {}, ...options.map(([value, name]) => make("option", { value }, name)));
    field.addEventListener("change", () => (set(field.value), changed()));
    updates.push(() => (field.value = get()));
    return make("label", {}, make("span", {}, label), field);
  }

  /** @param {string} label @param {"accepted" | "rejected" | "scene"} name @param {string} [title] */
  function box(label, name, title) {
    const field = make("input", { type: "checkbox" });
    field.addEventListener("change", () => ((state[name] = field.checked ? "1" : ""), changed()));
    updates.push(() => (field.checked = state[name] === "1"));
    return make("label", { class: "box", title }, field, make("span", {}, label));
  }

  const text = make("input", {
    type: "search",
    id: "explorer-search",
    placeholder: `Id${data.operations.values.length ? ", operation" : ""}${data.captions.length ? ", caption" : ""}`,
    autocomplete: "off",
    spellcheck: "false",
  });
  text.addEventListener("input", () => ((state.text = text.value), changed()));
  updates.push(() => text.value !== state.text && (text.value = state.text));

  const outcomes = make("div", { role: "group", "aria-label": "Outcome" });
  const present = OUTCOMES.filter((_, code) => data.outcome.includes(code));
  for (const name of ["", ...present]) {
    const [sign, words] = name ? data.outcomes[name] : ["", "All"];
    const total = name ? count(data.outcome, OUTCOMES.indexOf(name)) : data.outcome.length;
    const button = make(
      "button",
      { type: "button", "data-outcome": name },
      sign ? make("span", { "aria-hidden": "true" }, `${sign} `) : null,
      `${words} `,
      make("small", {}, format(total)),
    );
    button.addEventListener("click", () => ((state.outcome = name), changed()));
    updates.push(() => button.setAttribute("aria-pressed", String(state.outcome === name)));
    outcomes.append(button);
  }

  const models = /** @type {[string, string][]} */ (data.models.map(({ model, label }) => [model, label]));
  const several = models.length > 1;
  const any = /** @type {[string, string]} */ (["", several ? "any model" : "the model"]);
  const more = make("div", { class: "fields" });
  if (data.kinds.values.length > 1)
    more.append(
      select(
        "Operation",
        [
          ["", "any"],
          ...data.kinds.values.map(
            (value, code) =>
              /** @type {[string, string]} */ ([
                value,
                `${data.kinds.labels?.[code] ?? value} (${format(count(data.kinds.of, code))})`,
              ]),
          ),
        ],
        () => state.kind,
        (value) => (state.kind = value),
      ),
    );
  for (const column of data.columns)
    more.append(
      select(
        column.label,
        [
          ["", "any"],
          ...column.values.map(
            (value, code) => /** @type {[string, string]} */ ([value, `${value} (${format(count(column.of, code))})`]),
          ),
        ],
        () => state.columns[column.name] ?? "",
        (value) => (state.columns[column.name] = value),
      ),
    );
  if (several && data.known) {
    more.append(
      select(
        "Model A is right",
        [["", "–"], ...models],
        () => state.a,
        (value) => (state.a = value),
      ),
    );
    more.append(
      select(
        "and model B wrong",
        [["", "–"], ...models],
        () => state.b,
        (value) => (state.b = value),
      ),
    );
  }
  const about = make("fieldset", {}, make("legend", {}, "Rank and score"));
  if (several)
    about.append(
      select(
        "Model",
        [any, ...models],
        () => state.model,
        (value) => (state.model = value),
      ),
    );
  if (data.known) {
    /** @type {[string, string][]} */
    const ranks = [
      ["", "any"],
      ["1", "1"],
    ];
    if (data.k >= 2) ranks.push([`2-${Math.min(3, data.k)}`, data.k >= 3 ? "2–3" : "2"]);
    if (data.k >= 4) ranks.push([`4-${data.k}`, `4–${data.k}`]);
    ranks.push(["beyond", `not in the top ${data.k}`]);
    about.append(
      select(
        "Rank of the match",
        ranks,
        () => state.rank,
        (value) => (state.rank = value),
      ),
    );
    const margin = make("input", { type: "number", min: "0", step: "0.01", placeholder: "any" });
    margin.addEventListener("input", () => ((state.margin = margin.value), changed()));
    updates.push(() => margin.value !== state.margin && (margin.value = state.margin));
    about.append(
      make(
        "label",
        { title: "Difference in score between the best true match and the best wrong reference" },
        make("span", {}, "Margin at most"),
        margin,
      ),
    );
    if (data.models.some((model) => model.threshold !== null))
      about.append(
        box(
          "Wrong above the threshold",
          "accepted",
          "The first neighbor is wrong, and its score reaches the model’s threshold for 90 % precision",
        ),
      );
  }
  if (data.models.some((model) => model.scene.length))
    about.append(
      box(
        "Found the scene of its match",
        "scene",
        "The first neighbor is wrong, and shows the scene of the true match: perhaps another photograph of it",
      ),
    );
  if (data.models.some((model) => model.rank.includes(-1))) about.append(box("Rejected image", "rejected"));
  const each = make(
    "details",
    { class: "each" },
    make("summary", {}, "Outcome of each model"),
    make(
      "div",
      { class: "fields" },
      ...models.map(([model, label]) =>
        select(
          label,
          [
            ["", "any"],
            ["right", "right"],
            ["wrong", "wrong"],
            ["rejected", "rejected"],
          ],
          () => state.verdicts[model] ?? "",
          (value) => (state.verdicts[model] = value),
        ),
      ),
    ),
  );
  updates.push(() => (each.open = each.open || Object.values(state.verdicts).some(Boolean)));

  const sort = select(
    "Sort",
    Object.entries(data.known ? SORTS : { "": "Highest scores", id: "Id" }),
    () => state.sort,
    (value) => (state.sort = value),
  );
  const clear = make("button", { type: "button", class: "clear" }, "Clear filters");
  clear.addEventListener("click", () => (Object.assign(state, nothing(), { map: state.map }), changed()));
  const area = make("button", { type: "button", class: "area" }, "Area of the map");
  area.addEventListener("click", () => ((state.area = ""), changed()));
  updates.push(() => {
    const chosen = areaOf(state.area);
    area.hidden = !chosen || !data.maps.length;
    if (!chosen || !data.maps.length) return;
    area.textContent = `Area of the map (${format(inArea(data, mapOf(data, state), chosen).size)}) ✕`;
    area.setAttribute("aria-label", `${area.textContent.slice(0, -2)}: remove this filter`);
  });
  const showing = make("p", { class: "showing", role: "status" });
  const csv = make("button", { type: "button", class: "csv" }, "Download CSV");
  const help = make("button", { type: "button", class: "help-button", "aria-label": "Keyboard shortcuts" }, "?");
  const details = make(
    "details",
    { class: "more" },
    make("summary", {}, "More filters"),
    more,
    about,
    several && data.known ? each : null,
  );
  const narrowing = () =>
    [
      state.kind,
      state.a,
      state.b,
      state.model,
      state.rank,
      state.margin,
      state.accepted,
      state.rejected,
      state.scene,
      ...Object.values(state.verdicts),
      ...Object.values(state.columns),
    ].filter(Boolean).length;
  const summary = /** @type {HTMLElement} */ (details.firstElementChild);
  updates.push(() => (summary.textContent = narrowing() ? `More filters (${narrowing()})` : "More filters"));
  const element = make(
    "div",
    { class: "filters", role: "search", "aria-label": "Queries" },
    make("div", { class: "line" }, make("label", { class: "search" }, make("span", {}, "Search"), text), sort),
    outcomes,
    details,
    make("div", { class: "line" }, showing, area, clear, csv, help),
  );
  return {
    element,
    text,
    csv,
    help,
    /** @param {number} shown */
    update(shown) {
      for (const one of updates) one();
      const all = data.outcome.length;
      const noun = data.outcome.includes(4)
        ? all === 1
          ? "image"
          : "queries and showcase images"
        : all === 1
          ? "query"
          : "queries";
      showing.textContent = shown
        ? `${format(shown)} of ${format(all)} ${noun}`
        : `None of ${format(all)} ${noun}: clear a filter`;
      clear.hidden = shown === all;
      csv.disabled = !shown;
    },
  };
}
