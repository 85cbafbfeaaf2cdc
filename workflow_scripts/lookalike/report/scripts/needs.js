/** Show the parts of one need: its sentence, chart, card and board. Its name is in the page's address. */
export function startNeeds() {
  const choices = /** @type {NodeListOf<HTMLInputElement>} */ (document.querySelectorAll("input[name=need]"));
  if (!choices.length) return;
  const names = [...choices].map((choice) => choice.value);

  /** @param {string} need */
  function show(need) {
    for (const part of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-need]")))
      part.hidden = !(part.dataset.need ?? "").split(" ").includes(need);
    for (const choice of choices) choice.checked = choice.value === need;
  }

  /** @param {string} need */
  function choose(need) {
    show(need);
    const address = new URL(location.href);
    if (need === names[0]) address.searchParams.delete("need");
    else address.searchParams.set("need", need);
    history.replaceState(null, "", address);
  }

  for (const choice of choices) choice.addEventListener("change", () => choose(choice.value));
  /** @type {HTMLElement} */ (document.querySelector(".switch")).hidden = false;
  const wanted = new URLSearchParams(location.search).get("need") ?? "";
  show(names.includes(wanted) ? wanted : names[0]);
}
