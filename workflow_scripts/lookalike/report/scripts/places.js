/**
 * @typedef {object} Area  of a map, from 0 to 1000
 * @property {number} x0
 * @property {number} y0
 * @property {number} x1
 * @property {number} y1
 */

/**
 * An area out of an address; null if it is none.
 *
 * @param {string} text
 * @returns {Area | null}
 */
export function areaOf(text) {
  const [x0, y0, x1, y1, more] = text.split("-").map((part) => (/^\d+$/.test(part) ? Number(part) : NaN));
  return [x0, y0, x1, y1].every((value) => value >= 0) && more === undefined ? { x0, y0, x1, y1 } : null;
}

/** @param {Area} area */
export function areaText({ x0, y0, x1, y1 }) {
  return [x0, y0, x1, y1].map((value) => Math.max(0, Math.round(value))).join("-");
}

/**
 * The map that a state is about; without a choice, that of the model of the page's first sentence.
 *
 * @param {import("./data.js").Data} data
 * @param {{map: string}} state
 */
export function mapOf(data, state) {
  const chosen = data.maps.find(({ model }) => data.models[model].model === state.map);
  return chosen ?? data.maps.find(({ leads }) => leads) ?? data.maps[0];
}

/**
 * The queries whose places on a map are in an area.
 *
 * @param {import("./data.js").Data} data
 * @param {import("./data.js").ImageMap} map
 * @param {Area} area
 */
export function inArea(data, map, { x0, y0, x1, y1 }) {
  return new Set(
    map.images.filter(
      (image, at) =>
        image < data.outcome.length && map.x[at] >= x0 && map.x[at] <= x1 && map.y[at] >= y0 && map.y[at] <= y1,
    ),
  );
}
