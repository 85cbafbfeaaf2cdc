"use strict";
(() => {
  /** @type {{header: string[], rows: (string | number)[][]}} */
  const data = JSON.parse(document.getElementById("data")?.textContent ?? "{}");
  const state = document.getElementById("state");
  const button = document.getElementById("download");
  if (!state || !button) return;
  const [keep, bytes] = ["keep", "bytes"].map((name) => data.header.indexOf(name));
  /** @type {NodeListOf<HTMLInputElement>} */
  const boxes = document.querySelectorAll("input[data-row]");

  const update = () => {
    for (const box of boxes) data.rows[Number(box.dataset.row)][keep] = box.checked ? "yes" : "no";
    const rest = data.rows.filter((row) => row[keep] === "no");
    const size = rest.reduce((sum, row) => sum + Number(row[bytes]), 0);
    const kept = data.rows.length - rest.length;
    state.textContent = `${kept} to keep, ${rest.length} others with ${(size / 1e6).toFixed(1)} MB. This page deletes nothing.`;
  };

  /** @param {string | number} value */
  const quoted = (value) =>
    /[",\r\n]/.test(String(value)) ? `"${String(value).replaceAll('"', '""')}"` : String(value);

  document.addEventListener("change", update);
  button.addEventListener("click", () => {
    const text = [data.header, ...data.rows].map((row) => `${row.map(quoted).join(",")}\r\n`).join("");
    const link = document.createElement("a");
    link.download = "keep.csv";
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });
  button.hidden = false;
  update();
})();
