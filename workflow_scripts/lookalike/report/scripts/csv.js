import { OUTCOMES, RANK, seen, verdict } from "./data.js";

/** @param {string | number} value */
const quoted = (value) => (/[",\r\n]/.test(String(value)) ? `"${String(value).replaceAll('"', '""')}"` : String(value));

/**
 * One row for each query, with the rank, first neighbor and score of each model.
 *
 * @param {import("./data.js").Data} data
 * @param {number[]} queries
 */
export function toCsv(data, queries) {
  const head = ["query_id", "outcome"];
  if (data.operations.values.length) head.push("operations");
  if (data.captions.length) head.push("caption");
  head.push(...data.columns.map((column) => column.name));
  for (const { model } of data.models) head.push(`${model}.verdict`, `${model}.rank`, `${model}.first`, `${model}.score`);
  const rows = queries.map((query) => {
    /** @type {(string | number)[]} */
    const row = [data.ids[query], OUTCOMES[data.outcome[query]]];
    if (data.operations.values.length) row.push(data.operations.values[data.operations.of[query]] ?? "");
    if (data.captions.length) row.push(data.captions[query]);
    row.push(...data.columns.map((column) => column.values[column.of[query]] ?? ""));
    data.models.forEach((_, model) => {
      const { rank, hits } = seen(data, query, model);
      const first = hits[0];
      row.push(verdict(data, query, model), rank > RANK.notFound ? rank : "", data.ids[first?.image] ?? "", first ? first.score.toFixed(4) : "");
    });
    return row;
  });
  return [head, ...rows].map((row) => `${row.map(quoted).join(",")}\r\n`).join("");
}
