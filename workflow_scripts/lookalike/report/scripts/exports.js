import { make } from "./dom.js";
import { save } from "./save.js";
import { gridOf, tableCsv, tableLatex } from "./grids.js";

const CHARTS = "figure.chart, figure.dots, svg.scatter, svg.curves, svg.curve";
const STYLES = [
  ...["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "stroke-linecap", "stroke-linejoin", "opacity"],
  ...["font-family", "font-size", "font-weight", "text-anchor", "paint-order", "vector-effect", "overflow"],
];
const EDGE = 16; // pixels around a chart, into which labels reach
const SPACE = "http://www.w3.org/2000/svg";

/** Below each chart and table, buttons that save it: charts as SVG, tables as CSV and LaTeX. */
export function startExports() {
  const experiment = document.querySelector(".kicker bdi")?.textContent || "report";
  /** @type {Record<string, number>} */
  const numbers = {};
  const name = (/** @type {Element} */ of) => {
    const part = `${experiment}-${of.closest("section[id]")?.id ?? "answer"}`;
    numbers[part] = (numbers[part] ?? 0) + 1;
    return numbers[part] > 1 ? `${part}-${numbers[part]}` : part;
  };
  /** @param {Element} of @param {Record<string, () => void>} actions */
  function offer(of, actions) {
    const place = of.closest(".scroll") ?? of;
    const buttons = Object.entries(actions).map(([label, act]) => {
      const button = make("button", { type: "button" }, label);
      button.addEventListener("click", act);
      return button;
    });
    const line = make("p", { class: "save" }, make("span", { "aria-hidden": "true" }, "Save as "), ...buttons);
    if (of.matches("figure")) of.append(line);
    else place.after(line);
  }
  const found = [...document.querySelectorAll(`:is(header, main) :is(${CHARTS}, table)`)];
  for (const of of found) {
    if (of.closest("noscript, .static") || of.parentElement?.closest(CHARTS)) continue;
    const file = name(of);
    if (of instanceof HTMLTableElement)
      offer(of, {
        CSV: () => save(`${file}.csv`, tableCsv(gridOf(of)), "text/csv"),
        LaTeX: () => save(`${file}.tex`, tableLatex(gridOf(of)), "application/x-tex"),
      });
    else offer(of, { SVG: () => save(`${file}.svg`, standalone(of), "image/svg+xml") });
  }
}

/**
 * A chart, which is HTML and SVG that share a style sheet, as one SVG that needs neither.
 *
 * @param {Element} chart
 */
function standalone(chart) {
  const whole = chart.getBoundingClientRect();
  const bottom = chart.querySelector(".save")?.getBoundingClientRect().top ?? whole.bottom;
  const frame = new DOMRect(whole.left, whole.top, whole.width, bottom - whole.top);
  const key = legend(chart, frame);
  const root = document.createElementNS(SPACE, "svg");
  const size = { width: frame.width + 2 * EDGE, height: frame.height + key.height + 2 * EDGE };
  for (const [name, value] of Object.entries({ xmlns: SPACE, ...size })) root.setAttribute(name, String(value));
  root.setAttribute("viewBox", `${-EDGE} ${-EDGE} ${size.width} ${size.height}`);
  const shapes = document.querySelector("svg.shapes defs");
  if (shapes) root.append(shapes.cloneNode(true));
  const drawings = chart instanceof SVGSVGElement ? [chart] : [...chart.querySelectorAll("svg")];
  for (const drawing of drawings.filter((one) => one === chart || !one.parentElement?.closest("svg"))) {
    const box = drawing.getBoundingClientRect();
    if (!box.width) continue;
    root.append(placed(drawing, box.left - frame.left, box.top - frame.top));
  }
  root.append(...key.marks);
  if (!(chart instanceof SVGSVGElement)) root.append(...words(chart, frame));
  return new XMLSerializer().serializeToString(root);
}

/** A copy of a drawing that needs no style sheet. @param {SVGSVGElement} drawing @param {number} x @param {number} y */
function placed(drawing, x, y) {
  const { width, height } = drawing.getBoundingClientRect();
  const copy = /** @type {SVGSVGElement} */ (drawing.cloneNode(true));
  inline(drawing, copy);
  for (const [name, value] of Object.entries({ x, y, width, height })) copy.setAttribute(name, String(value));
  copy.querySelectorAll(".touch").forEach((one) => one.remove());
  return copy;
}

/** The section's legend, for below a chart. @param {Element} chart @param {DOMRect} frame */
function legend(chart, frame) {
  /** @type {SVGElement[]} */
  const marks = [];
  let [x, y] = [0, frame.height + EDGE];
  for (const entry of chart.closest("section")?.querySelectorAll(".legend li") ?? []) {
    const box = entry.getBoundingClientRect();
    if (x && x + box.width > frame.width) [x, y] = [0, y + box.height];
    const marker = /** @type {SVGSVGElement | null} */ (entry.querySelector("svg.marker"));
    if (marker) marks.push(placed(marker, x, y + 3));
    marks.push(...words(entry, new DOMRect(box.left - x, box.top - y)));
    x += box.width + 20;
  }
  return { marks, height: marks.length ? y + 24 - frame.height : 0 };
}

/** @param {Element} from @param {Element} to  of the same structure */
function inline(from, to) {
  const style = getComputedStyle(from);
  to.setAttribute("style", STYLES.map((name) => `${name}:${style.getPropertyValue(name).replaceAll('"', "'")}`).join(";"));
  to.removeAttribute("class");
  if (from.classList.contains("touch")) to.classList.add("touch");
  [...from.children].forEach((child, at) => inline(child, to.children[at]));
}

/** The text of a chart outside its drawings, line by line. @param {Element} chart @param {DOMRect} frame */
function words(chart, frame) {
  const walker = document.createTreeWalker(chart, NodeFilter.SHOW_TEXT);
  /** @type {SVGElement[]} */
  const lines = [];
  while (walker.nextNode()) {
    const node = walker.currentNode;
    const parent = node.parentElement;
    if (!parent || parent.closest("svg, .sr, .save")) continue;
    const style = getComputedStyle(parent);
    let bottom = -1;
    for (const { 0: word, index } of (node.textContent ?? "").matchAll(/\S+/g)) {
      const range = document.createRange();
      range.setStart(node, index);
      range.setEnd(node, index + word.length);
      const box = range.getBoundingClientRect();
      if (!box.width) continue;
      if (box.bottom === bottom) lines[lines.length - 1].append(` ${word}`);
      else {
        const line = document.createElementNS(SPACE, "text");
        line.setAttribute("x", String(box.left - frame.left));
        line.setAttribute("y", String(box.bottom - frame.top - box.height * 0.22));
        const kept = ["font-family", "font-size", "font-weight"].map((name) => `${name}:${style.getPropertyValue(name)}`);
        line.setAttribute("style", [...kept, `fill:${style.color}`].join(";").replaceAll('"', "'"));
        line.append(word);
        lines.push(line);
        bottom = box.bottom;
      }
    }
  }
  return lines;
}
