import { OUTCOMES, seen, verdict } from "./data.js";
import { thumbnail, status } from "./cards.js";
import { make, marker } from "./dom.js";
import { areaOf, areaText, mapOf } from "./places.js";
import { draw, toSvg } from "./scene.js";
import { save } from "./save.js";

/** @typedef {import("./data.js").Data} Data */
/** @typedef {import("./scene.js").Mark} Mark */

const NEAR = 16; // pixels between a pointer and the query that it points at
const DRAG = 5; // pixels that a pointer moves before it draws an area
const BESIDE = 4; // of 1000, around points between which the keyboard chose an area
const INSET = 14; // pixels around the places
const MOST_LINES = 150; // misses up to which each has a line to its match

/**
 * A map of the images as a model sees them, on which queries are looked at and an area is chosen as a filter.
 *
 * @param {Data} data
 * @param {import("./filters.js").State} state
 * @param {() => void} changed
 * @param {(query: number) => void} show  a query in the list
 */
export function imageMap(data, state, changed, show) {
  const canvas = make("canvas", {
    tabindex: "0",
    role: "application",
    "aria-label": "Map of the images",
    "aria-describedby": "map-help",
  });
  const tip = make("div", { class: "map-tip", "aria-hidden": "true" });
  const stage = make("div", { class: "map-stage" }, canvas, tip);
  const said = make("p", { class: "sr", role: "status" });
  const panel = make("div", { class: "map-panel" });
  const about = make("p", { class: "map-about" });
  const field = make(
    "select",
    {},
    ...data.maps.map(({ model }) => make("option", { value: data.models[model].model }, data.models[model].label)),
  );
  const drag = make("button", { type: "button", "aria-pressed": "false" }, "Choose an area");
  const svg = make("button", { type: "button" }, "Save as SVG");
  const element = make(
    "details",
    { class: "map", open: true },
    make("summary", {}, "Map"),
    make(
      "div",
      { class: "line" },
      make("label", {}, make("span", {}, "Model"), field),
      drag,
      svg,
      make(
        "ul",
        { class: "map-key" },
        ...[
          ["bad", "miss"],
          ["good", data.known ? "right" : "query"],
          ["none", "query without a match"],
          ["reference", "reference"],
        ]
          .filter(([name]) => data.known || name !== "bad")
          .filter(([name]) => name !== "none" || (data.known && data.outcome.includes(OUTCOMES.indexOf("none"))))
          .map(([name, text]) => make("li", { class: name }, text)),
      ),
    ),
    make("div", { class: "map-view" }, stage, panel),
    make(
      "p",
      { class: "map-help", id: "map-help" },
      "Point at a query to see it, click to show it in the list, drag to filter the list by an area. With the keyboard: " +
        "arrows go to the next query in that direction, Enter shows it in the list, Space begins and ends an area, " +
        "Escape removes it. The list below holds the same queries.",
    ),
    about,
    said,
  );
  const queries = data.outcome.length;
  let map = mapOf(data, state);
  /** @type {Set<number>} */
  let shown = new Set();
  /** @type {number[]} */
  let xs = [];
  /** @type {number[]} */
  let ys = [];
  let size = { width: 0, height: 0 };
  let at = -1; // a point, the current one
  /** @type {{x: number, y: number} | null} */
  let corner = null; // of an area that is being drawn
  /** @type {{x: number, y: number} | null} */
  let other = null;
  let margin = 0;
  let waiting = false;
  /** @type {Map<number, number>} */
  let pointOf = new Map();

  const model = () => map.model;
  const isQuery = (/** @type {number} */ point) => map.images[point] < queries;

  /** Where a place on the map is on a side of the canvas. @param {number} value @param {number} length  pixels */
  const side = (value, length) => INSET + (value / 1000) * (length - 2 * INSET);

  function place() {
    xs = map.x.map((value) => side(value, size.width));
    ys = map.y.map((value) => side(value, size.height));
  }

  /** @param {number} x @param {number} y  pixels */
  const toMap = (x, y) => {
    const back = (/** @type {number} */ value, /** @type {number} */ length) =>
      Math.round(Math.max(0, Math.min(1000, ((value - INSET) / (length - 2 * INSET)) * 1000)));
    return { x: back(x, size.width), y: back(y, size.height) };
  };

  /** What is drawn, from back to front. @returns {Mark[]} */
  function marks() {
    const style = getComputedStyle(document.documentElement);
    const color = (/** @type {string} */ name) => style.getPropertyValue(`--${name}`).trim();
    const [good, bad, soft, ink] = ["good", "bad", "soft", "ink"].map(color);
    /** @type {Mark[]} */
    const back = [];
    /** @type {Mark[]} */
    const misses = [];
    /** @type {Mark[]} */
    const others = [];
    map.images.forEach((image, point) => {
      const [x, y] = [xs[point], ys[point]];
      if (!isQuery(point)) return void back.push({ x, y, r: 1.8, fill: soft, alpha: 0.45 });
      const alpha = shown.has(image) ? 1 : 0.12;
      const result = verdict(data, image, model());
      if (!data.known) others.push({ x, y, r: 3, fill: good, alpha: 0.85 * alpha });
      else if (result === "right") others.push({ x, y, r: 2.8, fill: good, alpha: 0.8 * alpha });
      else if (!result) others.push({ x, y, r: 2.8, stroke: soft, width: 1.3, alpha });
      else {
        if (alpha === 1) misses.unshift({ x, y, r: 8, fill: bad, alpha: 0.18 });
        misses.push({ x, y, r: 4.2, fill: bad, alpha });
      }
    });
    const lit = map.images.flatMap((image, point) =>
      isQuery(point) && shown.has(image) && ["wrong", "rejected"].includes(verdict(data, image, model())) ? [point] : [],
    );
    /** @type {Mark[]} */
    const lines = lit.length > MOST_LINES ? [] : lit.flatMap((point) => ways(point, 0.22, { good, bad }).slice(0, 1));
    /** @type {Mark[]} */
    const front = [];
    if (at >= 0) {
      front.push(...ways(at, 1, { good, bad }));
      front.push({ x: xs[at], y: ys[at], r: 8, stroke: ink, width: 2.2, alpha: 1 });
    }
    const area = corner && other ? box(corner, other, margin) : areaOf(state.area);
    if (area) {
      const [x, y] = [side(area.x0, size.width), side(area.y0, size.height)];
      front.push({
        ...{ x, y, w: side(area.x1, size.width) - x, h: side(area.y1, size.height) - y },
        ...{ stroke: color("link"), width: 1.5, dash: [5, 4], fill: color("link"), alpha: 0.12 },
      });
    }
    return [...back, ...lines, ...others, ...misses, ...front];
  }

  /**
   * Lines from a query to its true matches, and to what was found instead.
   *
   * @param {number} point @param {number} alpha @param {{good: string, bad: string}} colors
   * @returns {Mark[]}
   */
  function ways(point, alpha, { good, bad }) {
    const query = map.images[point];
    if (query >= queries) return [];
    const [first] = seen(data, query, model()).hits;
    const to = data.matches[query].map((image) => ({ image, stroke: good, dash: /** @type {number[]} */ ([]) }));
    if (first && !first.right) to.push({ image: first.image, stroke: bad, dash: [4, 3] });
    return to.flatMap(({ image, stroke, dash }) => {
      const end = pointOf.get(image);
      return end === undefined
        ? []
        : [{ x: xs[point], y: ys[point], x2: xs[end], y2: ys[end], stroke, dash, width: alpha === 1 ? 2 : 1, alpha }];
    });
  }

  function paint() {
    waiting = false;
    if (!element.open || !size.width) return;
    draw(canvas, size, marks());
  }

  const redraw = () => {
    if (!waiting) requestAnimationFrame(paint);
    waiting = true;
  };

  function measure() {
    const width = stage.clientWidth;
    if (!width || width === size.width) return;
    size = { width, height: Math.round(Math.min(width, 560, Math.max(360, width * 0.72))) };
    stage.style.height = `${size.height}px`;
    place();
    redraw();
  }

  /** @param {number} x @param {number} y */
  function nearest(x, y) {
    let [best, least] = [-1, NEAR ** 2];
    map.images.forEach((image, point) => {
      if (image >= queries || !shown.has(image)) return;
      const far = (xs[point] - x) ** 2 + (ys[point] - y) ** 2;
      if (far < least) [best, least] = [point, far];
    });
    return best;
  }

  /** The next shown query in a direction: near, and not far aside. @param {number} dx @param {number} dy */
  function towards(dx, dy) {
    const [x, y] = at < 0 ? [size.width / 2, size.height / 2] : [xs[at], ys[at]];
    let [best, least] = [-1, Infinity];
    map.images.forEach((image, point) => {
      if (image >= queries || !shown.has(image) || point === at) return;
      const ahead = (xs[point] - x) * dx + (ys[point] - y) * dy;
      const aside = Math.abs((xs[point] - x) * dy) + Math.abs((ys[point] - y) * dx);
      const far = ahead + 2 * aside;
      if ((at < 0 || ahead > 0) && Math.abs(far) < least) [best, least] = [point, Math.abs(far)];
    });
    return best;
  }

  /** @param {number} image @param {string} noun @param {string} [kind] */
  function figure(image, noun, kind = "") {
    const id = image < 0 ? "not in the sample" : data.ids[image];
    return make("figure", {}, thumbnail(data, image, `${noun} ${id}`, `large ${kind}`), make("figcaption", {}, noun));
  }

  /** Show a query beside the map. @param {number} point  -1 for none */
  function look(point) {
    if (point === at) return;
    at = point;
    tip.replaceChildren();
    if (at < 0) {
      panel.replaceChildren(make("p", { class: "note" }, "Point at a query."));
      return redraw();
    }
    const query = map.images[at];
    const one = data.models[model()];
    const [first] = seen(data, query, model()).hits;
    const result = status(data, query, model());
    const parts = [
      make("p", { class: "strip-head" }, marker(one), make("bdi", {}, one.label), make("span", { class: "status" }, result)),
      make(
        "div",
        { class: "pair" },
        figure(query, "query"),
        ...data.matches[query].map((match) => figure(match, "true match", "truth")),
        first && !first.right ? figure(first.image, "found first") : null,
      ),
      data.captions[query] ? make("p", { class: "caption" }, make("bdi", {}, data.captions[query])) : null,
      make("p", { class: "id", title: data.ids[query] }, make("bdi", {}, data.ids[query])),
    ];
    panel.replaceChildren(...parts.filter((part) => part !== null));
    const found = first && !first.right ? `, found first: ${data.ids[first.image] ?? "not in the sample"}` : "";
    said.textContent = `${data.ids[query]}: ${result}${found}`;
    tip.append(thumbnail(data, query, data.ids[query]));
    tip.style.left = `${Math.max(0, Math.min(size.width - 76, xs[at] + 14))}px`;
    tip.style.top = `${ys[at] > size.height / 2 ? ys[at] - 86 : ys[at] + 14}px`;
    redraw();
  }

  function finish() {
    if (!corner || !other) return;
    state.map = data.models[model()].model;
    state.area = areaText(box(corner, other, margin));
    corner = other = null;
    touch(false);
    changed();
  }

  /** Whether a finger draws an area instead of scrolling the page. @param {boolean} on */
  function touch(on) {
    drag.setAttribute("aria-pressed", String(on));
    canvas.classList.toggle("choosing", on);
  }

  /** @param {PointerEvent} event */
  const pointer = (event) => {
    const bounds = canvas.getBoundingClientRect();
    return { x: event.clientX - bounds.left, y: event.clientY - bounds.top };
  };
  /** @type {{x: number, y: number} | null} */
  let pressed = null;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    pressed = pointer(event);
    corner = other = null;
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const here = pointer(event);
    const draws = event.pointerType === "mouse" || canvas.classList.contains("choosing");
    if (pressed && draws && Math.hypot(here.x - pressed.x, here.y - pressed.y) > DRAG) {
      margin = 0;
      corner = toMap(pressed.x, pressed.y);
      other = toMap(here.x, here.y);
      redraw();
    } else if (!pressed) look(nearest(here.x, here.y));
  });
  canvas.addEventListener("pointerup", (event) => {
    const here = pointer(event);
    if (corner && other) finish();
    else if (pressed) {
      const point = nearest(here.x, here.y);
      const again = event.pointerType === "mouse" || point === at; // a first tap shows it beside the map
      look(point);
      if (point >= 0 && again) show(map.images[point]);
    }
    pressed = null;
  });
  canvas.addEventListener("pointercancel", () => ((pressed = corner = other = null), redraw()));
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (step) {
      const point = towards(step[0], step[1]);
      if (point >= 0) look(point);
      if (corner && at >= 0) other = here();
    } else if (event.key === " " && at >= 0) {
      if (corner) finish();
      else [corner, other, margin] = [here(), here(), BESIDE];
    } else if (event.key === "Escape" && (corner || state.area)) {
      if (corner) corner = other = null;
      else ((state.area = ""), changed());
    } else if (event.key === "Enter" && at >= 0) show(map.images[at]);
    else return;
    event.preventDefault();
    event.stopPropagation();
    redraw();
  });
  const here = () => ({ x: map.x[at], y: map.y[at] });
  drag.addEventListener("click", () => touch(drag.getAttribute("aria-pressed") !== "true"));
  field.addEventListener("change", () => {
    state.map = field.value;
    if (state.area) state.area = ""; // another model's map has its own places
    changed();
  });
  svg.addEventListener("click", () =>
    save(`${data.experiment}-map.svg`, toSvg(size, marks(), data.models[model()].label), "image/svg+xml"),
  );
  element.addEventListener("toggle", () => (measure(), redraw()));
  new ResizeObserver(measure).observe(stage);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  at = 0;
  look(-1);

  return {
    element,
    /** @param {number[]} list  the queries that the filters keep */
    update(list) {
      const before = map;
      map = mapOf(data, state);
      shown = new Set(list);
      field.value = data.models[model()].model;
      if (before !== map || !pointOf.size) {
        pointOf = new Map(map.images.map((image, point) => [image, point]));
        place();
        look(-1);
        const on = map.images.filter((image) => image < queries).length;
        const others = map.images.length - on; // none where the queries are the references
        about.textContent =
          `${on.toLocaleString("en-US")} of ${queries.toLocaleString("en-US")} queries and ` +
          `${others ? `${others.toLocaleString("en-US")} references` : "no other images"}. ${map.about} Distances on the map are not scores.`;
      }
      redraw();
    },
  };
}

/** @param {{x: number, y: number}} a @param {{x: number, y: number}} b @param {number} margin */
function box(a, b, margin) {
  const [x0, x1] = [Math.min(a.x, b.x) - margin, Math.max(a.x, b.x) + margin];
  return { x0, y0: Math.min(a.y, b.y) - margin, x1, y1: Math.max(a.y, b.y) + margin };
}
