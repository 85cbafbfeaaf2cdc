import { OUTCOMES, RANK, seen } from "./data.js";
import { make, marker } from "./dom.js";

/** @typedef {import("./data.js").Data} Data */

/**
 * An image: a cell of a sprite, or why it has no pixels; in a page without pixels its id.
 *
 * @param {Data} data
 * @param {number} image
 * @param {string} alt
 * @param {string} [kind]
 */
export function thumbnail(data, image, alt, kind = "") {
  const id = image < 0 ? "not in the sample" : data.ids[image];
  const cell = image < 0 ? -1 : (data.cells[image] ?? -1);
  if (cell < 0) {
    const reason = image < 0 ? id : (data.reasons[image] ?? "");
    const label = reason ? `${alt}; not available: ${reason}` : alt;
    return make(
      "span",
      {
        class: `pic broken ${kind}`,
        role: "img",
        title: reason && reason !== id ? `${id}: ${reason}` : id,
        "aria-label": label,
      },
      make("span", { "aria-hidden": "true" }, reason || id),
    );
  }
  const sheet = Math.floor(cell / data.across ** 2);
  const place = cell % data.across ** 2;
  const element = make("span", { class: `pic s${sheet} ${kind}`, role: "img", title: id, "aria-label": alt });
  element.style.setProperty("--x", String(place % data.across));
  element.style.setProperty("--y", String(Math.floor(place / data.across)));
  return element;
}

/**
 * @param {Data} data
 * @param {number} query
 * @param {number} model
 */
export function status(data, query, model) {
  const { rank, hits } = seen(data, query, model);
  if (rank === RANK.rejected) return "image rejected";
  if (!hits.length) return "no neighbors";
  if (rank === RANK.unranked) return `top score ${hits[0].score.toFixed(2)}`;
  if (rank === RANK.notFound) return `no match in the top ${data.k}`;
  return `match at rank ${rank}${data.models[model].tied.includes(query) ? ", tied" : ""}`;
}

/**
 * @param {Data} data
 * @param {number} query
 * @param {number} model
 * @param {string} noun
 */
function strip(data, query, model, noun) {
  const one = data.models[model];
  const { rank, hits } = seen(data, query, model);
  const good = rank === 1;
  const head = make(
    "p",
    { class: "strip-head" },
    marker(one),
    make("bdi", {}, one.label),
    " ",
    make("span", { class: good ? "status good" : "status" }, (good ? "✓ " : "") + status(data, query, model)),
  );
  if (!hits.length) {
    const reason = one.reasons[query];
    const text = reason
      ? `This model rejected the ${noun}: ${reason}.`
      : `The table of neighbors has no rows for this ${noun}.`;
    return make("div", { class: "strip" }, head, make("p", { class: "missing" }, text));
  }
  const list = make("ol");
  hits.forEach((hit, place) => {
    const id = hit.image < 0 ? "not in the sample" : data.ids[hit.image];
    const enlarge = make(
      "button",
      { type: "button", class: "hit", "data-model": String(model), "data-hit": String(place), tabindex: "-1" },
      thumbnail(data, hit.image, `Rank ${place + 1}: ${id}${hit.right ? ", a true match" : ""}${hit.scene ? ", the scene of a true match" : ""}`),
    );
    const score = make("small", {}, hit.scene ? make("abbr", { title: "Shows the scene of a true match" }, "scene ") : null, hit.right ? make("span", { class: "sr" }, "match, ") : null, hit.score.toFixed(2));
    list.append(
      make(
        "li",
        { class: hit.right ? "right" : null },
        enlarge,
        hit.right ? make("span", { class: "tick", "aria-hidden": "true" }, "✓") : null,
        score,
      ),
    );
  });
  return make("div", { class: "strip" }, head, list);
}

/**
 * @param {Data} data
 * @param {number} query
 * @param {string} address of the query
 */
export function card(data, query, address) {
  const outcome = OUTCOMES[data.outcome[query]];
  const noun = outcome === "showcase" ? "image" : "query";
  const id = data.ids[query];
  const [sign, name] = data.outcomes[outcome];
  const pair = make(
    "div",
    { class: "pair" },
    make(
      "figure",
      {},
      thumbnail(data, query, `${noun === "image" ? "Image" : "Query"} ${id}`, "large"),
      make("figcaption", {}, noun),
    ),
  );
  for (const match of data.matches[query])
    pair.append(
      make(
        "figure",
        {},
        thumbnail(data, match, `True match ${data.ids[match]}`, "large truth"),
        make("figcaption", {}, "true match"),
      ),
    );
  const operations = data.operations.values[data.operations.of[query]];
  const more = data.more[query];
  const question = make(
    "div",
    { class: "question" },
    make(
      "h3",
      { class: `badge ${outcome}` },
      make("span", { "aria-hidden": "true" }, sign),
      ` ${name}`,
      make("span", { class: "sr" }, `: ${noun} `, make("bdi", {}, id)),
    ),
    pair,
    more ? make("p", { class: "operations" }, `and ${more} more true ${more === 1 ? "match" : "matches"}`) : null,
    operations ? make("p", { class: "operations" }, operations) : null,
    data.captions[query] ? make("p", { class: "caption" }, make("bdi", {}, data.captions[query])) : null,
    make(
      "p",
      { class: "id", title: id },
      make("a", { href: address, "aria-label": `Link to ${noun} ${id}`, tabindex: "-1" }, make("bdi", {}, id)),
    ),
  );
  const strips = make("div", { class: "strips" }, ...data.models.map((_, model) => strip(data, query, model, noun)));
  return make(
    "article",
    { class: "row", id: `query-${query}`, "data-query": String(query), "data-outcome": outcome, tabindex: "-1" },
    question,
    strips,
  );
}
