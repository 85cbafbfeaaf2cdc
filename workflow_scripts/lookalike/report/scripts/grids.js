/** What LaTeX has other letters for, or reads as a command. */
const LATEX = /** @type {Record<string, string>} */ ({
  ...{ "\\": "\\textbackslash{}", "&": "\\&", "%": "\\%", $: "\\$", "#": "\\#", _: "\\_", "{": "\\{", "}": "\\}" },
  ...{ "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "\u00a0": "~", "\u202f": "\\,", "−": "$-$", "–": "--" },
  ...{ "▲": "$\\uparrow$", "▼": "$\\downarrow$", "★": "$\\star$", "≈": "$\\approx$", "≠": "$\\neq$", "≥": "$\\geq$" },
  ...{ "µ": "$\\mu$", "μ": "$\\mu$", "∅": "$\\emptyset$", "×": "$\\times$", "✓": "+", "✗": "--", "…": "\\dots{}" },
});

/**
 * The cells of a table as they are read, header first; a cell over several rows or columns is repeated.
 *
 * @param {HTMLTableElement} table
 * @returns {{head: number, rows: string[][]}}
 */
export function gridOf(table) {
  /** @type {string[][]} */
  const rows = [...table.rows].map(() => []);
  [...table.rows].forEach((row, y) => {
    let x = 0;
    for (const cell of row.cells) {
      while (rows[y][x] !== undefined) x++;
      const text = cell.innerText.replace(/[ \t\n]+/g, " ").trim();
      for (let down = 0; down < cell.rowSpan && y + down < rows.length; down++)
        for (let across = 0; across < cell.colSpan; across++) rows[y + down][x + across] = text;
      x += cell.colSpan;
    }
  });
  return { head: table.tHead?.rows.length ?? 0, rows };
}

/** @param {{rows: string[][]}} grid */
export function tableCsv({ rows }) {
  const quoted = (/** @type {string} */ text) => (/[",]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  return rows.map((row) => `${row.map(quoted).join(",")}\r\n`).join("");
}

/** A tabular with the lines of the package booktabs. @param {{head: number, rows: string[][]}} grid */
export function tableLatex({ head, rows }) {
  const escaped = (/** @type {string} */ text) => [...text].map((letter) => LATEX[letter] ?? letter).join("");
  const lines = rows.map((row) => `${row.map(escaped).join(" & ")} \\\\`);
  const columns = "l".repeat(Math.max(0, ...rows.map((row) => row.length)));
  const parts = ["% needs \\usepackage{booktabs}", `\\begin{tabular}{${columns}}`, "\\toprule", ...lines.slice(0, head)];
  return [...parts, ...(head ? ["\\midrule"] : []), ...lines.slice(head), "\\bottomrule", "\\end{tabular}\n"].join("\n");
}
