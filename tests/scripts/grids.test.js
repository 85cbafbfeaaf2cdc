// Tables as CSV and LaTeX.
import assert from "node:assert/strict";
import { test } from "node:test";
import { gridOf, tableCsv, tableLatex } from "../../workflow_scripts/lookalike/report/scripts/grids.js";

const cell = (innerText, colSpan = 1, rowSpan = 1) => ({ innerText, colSpan, rowSpan });
const table = {
  tHead: { rows: [{}] },
  rows: [
    { cells: [cell("Model"), cell("Accuracy,\n  at 1", 2)] },
    { cells: [cell('"a"_b', 1, 2), cell("50 %"), cell("▲ better")] },
    { cells: [cell("−1"), cell("50–60 %")] },
  ],
};

test("cells over several rows and columns are repeated, so that all rows are equally long", () => {
  const { head, rows } = gridOf(table);
  assert.equal(head, 1);
  assert.deepEqual(rows, [
    ["Model", "Accuracy, at 1", "Accuracy, at 1"],
    ['"a"_b', "50 %", "▲ better"],
    ['"a"_b', "−1", "50–60 %"],
  ]);
});

test("CSV quotes what must be quoted", () => {
  assert.equal(
    tableCsv(gridOf(table)).split("\r\n").slice(0, 2).join("\n"),
    'Model,"Accuracy, at 1","Accuracy, at 1"\n"""a""_b",50 %,▲ better',
  );
});

test("LaTeX has no letter left that it would read as a command", () => {
  const lines = tableLatex(gridOf(table)).split("\n");
  assert.deepEqual(lines.slice(1), [
    "\\begin{tabular}{lll}",
    "\\toprule",
    "Model & Accuracy, at 1 & Accuracy, at 1 \\\\",
    "\\midrule",
    '"a"\\_b & 50 \\% & $\\uparrow$ better \\\\',
    '"a"\\_b & $-$1 & 50--60 \\% \\\\',
    "\\bottomrule",
    "\\end{tabular}",
    "",
  ]);
});
