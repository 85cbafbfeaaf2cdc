import { make } from "./dom.js";

export const PAGE = 12;

/**
 * A long list of which only the part near the screen is in the document. It starts with one page, which stays for
 * printing, so that what follows the list can be reached; a button shows the rest.
 *
 * @param {HTMLElement} place
 * @param {(query: number) => HTMLElement} render
 */
export function longList(place, render) {
  /** @type {number[]} */
  let queries = [];
  /** @type {HTMLElement[]} */
  let pages = [];
  const all = make("button", { type: "button", class: "show-all" });
  const cards = make("div", {});
  place.append(cards, all);
  let isWhole = false;
  all.addEventListener("click", () => expand());
  const near = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        const page = /** @type {HTMLElement} */ (entry.target);
        if (entry.isIntersecting) fill(page);
        else if (page !== pages[0] && page.childElementCount && !page.contains(document.activeElement)) empty(page, entry.boundingClientRect.height);
      }
    },
    { rootMargin: "1200px 0px" },
  );

  /** @param {HTMLElement} page */
  function fill(page) {
    if (page.childElementCount) return;
    const from = pages.indexOf(page) * PAGE;
    page.append(...queries.slice(from, from + PAGE).map(render));
    page.style.height = "";
  }

  /** @param {HTMLElement} page @param {number} height */
  function empty(page, height) {
    page.style.height = `${height}px`;
    page.replaceChildren();
  }

  function expand() {
    isWhole = true;
    all.hidden = true;
    for (const page of pages.slice(1)) page.hidden = false;
  }

  return {
    /** @param {number[]} shown */
    show(shown) {
      queries = shown;
      near.disconnect();
      pages = [];
      for (let from = 0; from < queries.length; from += PAGE) {
        const page = make("div", { class: "page" });
        page.style.height = `${Math.min(PAGE, queries.length - from) * 300}px`;
        page.hidden = from > 0 && !isWhole;
        pages.push(page);
      }
      if (pages.length) fill(pages[0]);
      cards.replaceChildren(...pages);
      all.textContent = `Show all ${queries.length.toLocaleString("en-US")}`;
      all.hidden = isWhole || pages.length < 2;
      for (const page of pages) near.observe(page);
    },
    /**
     * The card of a query, wherever it is in the list.
     *
     * @param {number} query
     * @returns {HTMLElement | null}
     */
    reach(query) {
      const at = queries.indexOf(query);
      if (at < 0) return null;
      if (at >= PAGE && !isWhole) expand();
      fill(pages[Math.floor(at / PAGE)]);
      return cards.querySelector(`[data-query="${query}"]`);
    },
    queries: () => queries,
  };
}
