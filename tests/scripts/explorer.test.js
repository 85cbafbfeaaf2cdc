// The parts of the explorer that need no page: what it unpacks, finds and writes.
import assert from "node:assert/strict";
import { test } from "node:test";
import { deflateSync } from "node:zlib";
import { confidences, seen, unpack, verdict } from "../../workflow_scripts/lookalike/report/scripts/data.js";
import { finder, fromHash, nothing, toHash } from "../../workflow_scripts/lookalike/report/scripts/filters.js";
import { toCsv } from "../../workflow_scripts/lookalike/report/scripts/csv.js";

/** Four queries and two models: a showcase image, one that both find, one that only A finds, one without a match. */
const data = {
  experiment: "trial",
  k: 3,
  shown: 2,
  across: 8,
  side: 64,
  known: true,
  outcomes: {},
  ids: ["laptop", "q=1", "q,2", 'q"3', "ref-1", "ref-2"],
  cells: [],
  reasons: {},
  captions: ["", "A red Bus", "", "", "", ""],
  outcome: [4, 2, 0, 3],
  operations: { values: ["lightly cropped"], of: [-1, 0, -1, -1] },
  kinds: { values: ["crop"], of: [-1, 0, -1, -1] },
  columns: [{ name: "by_camera", label: "camera", values: ["old"], of: [-1, -1, 0, -1] }],
  matches: [[], [4], [5], []],
  more: [0, 0, 0, 0],
  models: [
    {
      model: "a&b",
      label: "A",
      color: 0,
      shape: "circle",
      threshold: 0.8,
      rank: [-3, 1, 1, -3],
      tied: [],
      accepted: [1, 3],
      margin: [null, 4000, 1000, null],
      hits: [4, 5, 4, 5, 5, 4, 4, 5],
      scores: [9000, 100, 8500, 4500, 5000, 4000, 9900, 100],
      right: [0, 1, 1, 0],
      scene: [],
      reasons: {},
    },
    {
      model: "b",
      label: "B",
      color: 1,
      shape: "square",
      threshold: 0.8,
      rank: [-3, 1, 2, -1],
      tied: [],
      accepted: [2],
      margin: [null, 100, -1000, null],
      hits: [4, 5, 4, 5, 4, 5, -1, -1],
      scores: [9000, 100, 8500, 8400, 9000, 8000, null, null],
      right: [0, 1, 2, 0],
      scene: [0, 0, 1, 0],
      reasons: { 3: "damaged" },
    },
  ],
  maps: [
    { model: 0, images: [0, 1, 2, 3, 4], x: [0, 100, 200, 300, 150], y: [0, 100, 200, 300, 150], about: "" },
    { model: 1, images: [1, 2, 4], x: [900, 100, 150], y: [900, 100, 150], about: "" },
  ],
};
const find = finder(data);
const ids = (state) => find({ ...nothing(), ...state });

test("compressed data are unpacked, whatever letters they hold", async () => {
  const packed = deflateSync(JSON.stringify({ ids: ["図.png", "</script>"] })).toString("base64");
  assert.deepEqual((await unpack(packed)).ids, ["図.png", "</script>"]);
});

test("a query is seen as each model saw it", () => {
  assert.deepEqual(
    seen(data, 2, 1).hits.map(({ image, right }) => [image, right]),
    [
      [4, false],
      [5, true],
    ],
  );
  assert.equal(seen(data, 3, 1).hits.length, 0);
  assert.deepEqual(
    [1, 2, 3].map((query) => verdict(data, query, 1)),
    ["right", "wrong", "rejected"],
  );
});

test("showcase images come first, then the most confident mistakes", () => {
  assert.deepEqual(ids({}), [0, 3, 2, 1]);
});

test("confidence is the share of queries with a lower score, equal for equal scores", () => {
  const [a] = confidences({ ...data, models: [{ ...data.models[0], scores: [5, 0, 5, 0, 9, 0, 1, 0] }] });
  assert.deepEqual([...a], [0.25, 0.25, 0.75, 0]);
});

for (const [state, expected] of [
  [{ text: "bus" }, [1]],
  [{ text: "Q CROPPED" }, [1]],
  [{ outcome: "none" }, [3]],
  [{ kind: "crop" }, [1]],
  [{ columns: { by_camera: "old" } }, [2]],
  [{ a: "a&b", b: "b" }, [2]],
  [{ verdicts: { b: "rejected" } }, [3]],
  [{ verdicts: { "a&b": "right", b: "wrong" } }, [2]],
  [{ rank: "2-3" }, [2]],
  [{ rank: "2-3", model: "a&b" }, []],
  [{ margin: "0.01" }, [1]],
  [{ accepted: "1" }, [3, 2]],
  [{ accepted: "1", model: "b" }, [2]],
  [{ rejected: "1" }, [3]],
  [{ scene: "1" }, [2]],
  [{ scene: "1", model: "a&b" }, []],
  [{ area: "100-100-200-200" }, [2, 1]],
  [{ area: "100-100-200-200", map: "b" }, [2]],
  [{ area: "100-100-200-200", text: "bus" }, [1]],
  [{ area: "no area" }, [0, 3, 2, 1]],
  [{ model: "no such model" }, [0, 3, 2, 1]],
]) {
  test(`filter ${JSON.stringify(state)}`, () => assert.deepEqual(ids(state), expected));
}

test("an address brings back filters and query", () => {
  const state = {
    ...nothing(),
    text: "a b&c",
    model: "a&b",
    verdicts: { "a&b": "wrong" },
    columns: { by_camera: "old = new" },
  };
  const back = fromHash(toHash(state, 'q"3#?'));
  assert.deepEqual(back, { state, query: 'q"3#?' });
  assert.equal(fromHash("#pairs"), null);
  assert.deepEqual(fromHash("#explorer?unknown=1&__proto__=2")?.state, nothing());
});

test("the CSV quotes what must be quoted and has a row for each query", () => {
  const lines = toCsv(data, [3, 2]).split("\r\n");
  assert.equal(
    lines[0],
    "query_id,outcome,operations,caption,by_camera,a&b.verdict,a&b.rank,a&b.first,a&b.score,b.verdict,b.rank,b.first,b.score",
  );
  assert.equal(lines[1], '"q""3",none,,,,,,ref-1,0.9900,rejected,,,');
  assert.equal(lines[2], '"q,2",disagree,,,old,right,1,ref-2,0.5000,wrong,2,ref-1,0.9000');
});
