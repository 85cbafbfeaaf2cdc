import { make } from "./dom.js";

export const PAGE = 12;

/**
 * A long list of which only the part near the screen is in the document.
 *
 * @param {HTMLElement} place
 * @param {(query: number) => HTMLElement} render
 */
export function longList(place, render) {
  /** @type {number[]} */
  let queries = [];
  /** @type {HTMLElement[]} */
  let pages = [];
  const near = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        const page = /** @type {HTMLElement} */ (entry.target);
        if (entry.isIntersecting) fill(page);
        else if (page.childElementCount && !page.contains(document.activeElement)) empty(page, entry.boundingClientRect.height);
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

  addEventListener("beforeprint", () => pages.length && fill(pages[0]));

  return {
    /** @param {number[]} shown */
    show(shown) {
      queries = shown;
      near.disconnect();
      pages = [];
      for (let from = 0; from < queries.length; from += PAGE) {
        const page = make("div", { class: "page" });
        page.style.height = `${Math.min(PAGE, queries.length - from) * 300}px`;
        pages.push(page);
      }
      if (pages.length) fill(pages[0]);
      place.replaceChildren(...pages);
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
      fill(pages[Math.floor(at / PAGE)]);
      return place.querySelector(`[data-query="${query}"]`);
    },
    queries: () => queries,
  };
}
