// Drop an image in, see the nearest images of a run. Names of files are text, never markup.

/** @typedef {{rank: number, id: string, score: number, image: string}} Neighbor */

/** @param {string} id */
const element = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
const drop = element("drop");
const file = /** @type {HTMLInputElement} */ (element("file"));

/** @type {{title: string, images: number, token: string}} */
const facts = await (await fetch("facts")).json();
element("title").textContent = facts.title;
document.title = `${facts.title} - Lookalike`;
element("status").textContent = `${facts.images.toLocaleString("en")} images can be found.`;

/** @param {Neighbor} neighbor */
function card({ rank, id, score, image }) {
  const item = document.createElement("li");
  const figure = document.createElement("figure");
  const shown = document.createElement("img");
  shown.src = image;
  shown.alt = id;
  shown.loading = "lazy";
  const caption = document.createElement("figcaption");
  caption.textContent = `${rank}. ${id} (${score.toFixed(4)})`;
  figure.append(shown, caption);
  item.append(figure);
  return item;
}

let last = 0; // the search that was started last: answers to earlier ones are not shown

/** @param {Blob | null | undefined} blob */
async function search(blob) {
  if (!blob) return;
  const own = ++last;
  const query = element("query");
  const shown = /** @type {HTMLImageElement} */ (query.querySelector("img"));
  URL.revokeObjectURL(shown.src);
  shown.src = URL.createObjectURL(blob);
  query.hidden = false;
  element("found").replaceChildren();
  element("status").textContent = "Searching ...";
  let message = "The program no longer answers. Start `lookalike serve` again.";
  try {
    const answer = await fetch("search", { method: "POST", body: blob, headers: { "x-lookalike-token": facts.token } });
    const found = await answer.json();
    if (own !== last) return;
    if (answer.ok) {
      element("found").replaceChildren(...found.neighbors.map(card));
      message = `The ${found.neighbors.length} nearest images, with their cosine similarity.`;
    } else message = found.error;
  } catch {
    if (own !== last) return;
  }
  element("status").textContent = message;
}

file.addEventListener("change", () => search(file.files?.[0]));
document.addEventListener("paste", (event) => search(event.clipboardData?.files[0]));
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
for (const name of ["dragleave", "drop"]) document.addEventListener(name, () => drop.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  search(event.dataTransfer?.files[0]);
});
document.body.dataset.ready = "yes";

export {};
