import { OUTCOMES, seen } from "./data.js";
import { make, marker } from "./dom.js";
import { thumbnail, status } from "./cards.js";

const FLICKER = 450; // milliseconds an image is shown; slow enough for people whom flashes harm

/**
 * A dialog with a query and one neighbor side by side, or in turn in one place, where differences jump out.
 *
 * @param {import("./data.js").Data} data
 */
export function enlarger(data) {
  const title = make("h3", { id: "enlarge-title" });
  const stage = make("div", { class: "stage" });
  const note = make("p", { class: "stage-note", role: "status" });
  const previous = make("button", { type: "button", "aria-label": "Previous neighbor" }, "←");
  const next = make("button", { type: "button", "aria-label": "Next neighbor" }, "→");
  const flicker = make("button", { type: "button", "aria-pressed": "false" }, "Flicker ", make("kbd", {}, "f"));
  const close = make("button", { type: "button" }, "Close ", make("kbd", {}, "Esc"));
  const dialog = make("dialog", { class: "enlarge", "aria-labelledby": "enlarge-title" }, title, stage, note,
    make("div", { class: "tools" }, previous, next, flicker, close));
  document.body.append(dialog);
  let query = 0;
  let model = 0;
  let hit = 0;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  let timer;

  /** @param {boolean} on */
  function blink(on) {
    clearInterval(timer);
    timer = on ? setInterval(() => stage.classList.toggle("second"), FLICKER) : undefined;
    stage.classList.toggle("one-place", on);
    stage.classList.remove("second");
    flicker.setAttribute("aria-pressed", String(on));
  }

  function draw() {
    const { hits } = seen(data, query, model);
    const one = data.models[model];
    const id = data.ids[query];
    title.replaceChildren(marker(one), make("bdi", {}, one.label), ` · ${status(data, query, model)}`);
    const found = hits[hit];
    const caption = (/** @type {number} */ image) => (data.captions[image] ? make("small", {}, make("bdi", {}, data.captions[image])) : null);
    const figures = [make("figure", {}, thumbnail(data, query, `Query ${id}`, "huge"), make("figcaption", {}, "query ", make("bdi", {}, id), caption(query)))];
    if (found) {
      const name = found.image < 0 ? "not in the sample" : data.ids[found.image];
      figures.push(make("figure", { class: found.right ? "match" : null },
        thumbnail(data, found.image, `Rank ${hit + 1}: ${name}${found.right ? ", a true match" : ""}`, "huge"),
        make("figcaption", {}, `rank ${hit + 1} `, make("bdi", {}, name), caption(found.image))));
    }
    stage.replaceChildren(...figures);
    const answer = data.matches[query].length ? "not a true match" : OUTCOMES[data.outcome[query]] === "none" ? data.outcomes.none[1].toLowerCase() : "";
    note.textContent = found
      ? [`Neighbor ${hit + 1} of ${hits.length}`, found.right ? "a true match" : answer, `score ${found.score.toFixed(4)}`].filter(Boolean).join(", ")
      : "This model found nothing for this query.";
    previous.disabled = hit === 0;
    next.disabled = hit >= hits.length - 1;
  }

  /** @param {number} by */
  function step(by) {
    const { hits } = seen(data, query, model);
    hit = Math.max(0, Math.min(hits.length - 1, hit + by));
    draw();
  }

  previous.addEventListener("click", () => step(-1));
  next.addEventListener("click", () => step(1));
  flicker.addEventListener("click", () => blink(!timer));
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => blink(false));
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
    else if (event.key === "f") blink(!timer);
    else if (/^[1-9]$/.test(event.key) && data.models[Number(event.key) - 1]) {
      model = Number(event.key) - 1;
      hit = 0;
      draw();
    } else return;
    event.preventDefault();
  });

  /** @param {number} ofQuery @param {number} ofModel @param {number} ofHit */
  return function enlarge(ofQuery, ofModel, ofHit) {
    [query, model, hit] = [ofQuery, ofModel, ofHit];
    draw();
    dialog.showModal();
  };
}
