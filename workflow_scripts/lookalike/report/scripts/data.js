/**
 * What the page knows of every query. report/explorer.py writes it; query i is image i.
 *
 * @typedef {object} Coded  values as numbers into `values`; -1 for none
 * @property {string[]} values
 * @property {string[]} [labels]
 * @property {number[]} of
 *
 * @typedef {object} Model
 * @property {string} model
 * @property {string} label
 * @property {number} color
 * @property {string} shape
 * @property {number | null} threshold
 * @property {number[]} rank  from 1; 0: not in the top k; see RANK
 * @property {number[]} tied  queries
 * @property {number[]} accepted  queries whose first neighbor reaches the threshold
 * @property {(number | null)[]} margin  in units of 1 / SCORE
 * @property {number[]} hits  `shown` images for each query; -1 for none
 * @property {(number | null)[]} scores  likewise
 * @property {number[]} right  for each query, bit i is set if hit i is a true match
 * @property {number[]} scene  likewise, if wrong hit i shows the scene of a true match; empty if none does
 * @property {Record<string, string>} reasons  why it rejected a query
 *
 * @typedef {object} ImageMap  places of images on a plane, from 0 to 1000
 * @property {number} model
 * @property {number[]} images
 * @property {number[]} x
 * @property {number[]} y
 * @property {string} about
 * @property {boolean} leads  whether the page's first sentence is about its model
 *
 * @typedef {object} Data
 * @property {string} experiment
 * @property {number} k
 * @property {number} shown
 * @property {number} across
 * @property {number} side
 * @property {boolean} known  whether any query has a known answer
 * @property {Record<string, [string, string]>} outcomes  sign and name
 * @property {string[]} ids
 * @property {number[]} cells  of the sprites; -1 for none; empty in a page without pixels
 * @property {Record<string, string>} reasons
 * @property {string[]} captions
 * @property {number[]} outcome
 * @property {Coded} operations
 * @property {Coded} kinds
 * @property {(Coded & {name: string, label: string})[]} columns
 * @property {number[][]} matches
 * @property {number[]} more
 * @property {Model[]} models
 * @property {ImageMap[]} maps
 */

export const OUTCOMES = ["disagree", "wrong", "right", "none", "showcase"];
export const SCORE = 10000;
export const RANK = { notFound: 0, rejected: -1, noRows: -2, unranked: -3 };

/**
 * @param {string} packed base64 of JSON that zlib compressed
 * @returns {Promise<Data>}
 */
export async function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed.trim()), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

/**
 * One query as one model saw it.
 *
 * @param {Data} data
 * @param {number} query
 * @param {number} model
 */
export function seen(data, query, model) {
  const one = data.models[model];
  const from = query * data.shown;
  const hits = [];
  for (let i = from; i < from + data.shown; i++) {
    const score = one.scores[i];
    if (score !== null)
      hits.push({
        image: one.hits[i],
        score: score / SCORE,
        right: Boolean((one.right[query] >> (i - from)) & 1),
        scene: Boolean(((one.scene[query] ?? 0) >> (i - from)) & 1),
      });
  }
  return { rank: one.rank[query], margin: one.margin[query], hits };
}

/**
 * What became of a query with one model: right, wrong, rejected, or "" without a known answer.
 *
 * @param {Data} data
 * @param {number} query
 * @param {number} model
 */
export function verdict(data, query, model) {
  const rank = data.models[model].rank[query];
  if (rank === RANK.rejected) return "rejected";
  if (!data.matches[query].length) return "";
  return rank === 1 ? "right" : "wrong";
}

/**
 * How sure each model was of its first neighbor: the share of its queries with a lower top score. Scores of two models
 * cannot be compared, these can.
 *
 * @param {Data} data
 * @returns {Float32Array[]}
 */
export function confidences(data) {
  return data.models.map((model) => {
    const tops = data.matches.map((_, query) => model.scores[query * data.shown] ?? -Infinity);
    const order = tops.map((_, query) => query).sort((a, b) => tops[a] - tops[b]);
    const share = new Float32Array(tops.length);
    let lower = 0;
    order.forEach((query, place) => {
      if (place && tops[query] > tops[order[place - 1]]) lower = place;
      share[query] = lower / order.length;
    });
    return share;
  });
}
