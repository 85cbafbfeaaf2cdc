/** The cards of "Use it": the slider of the target precision, and buttons that copy code. */
export function startCards() {
  for (const card of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("#use .card"))) {
    slider(card);
    for (const button of /** @type {NodeListOf<HTMLButtonElement>} */ (card.querySelectorAll("button.copy"))) {
      button.hidden = false;
      button.addEventListener("click", () => copy(button));
    }
  }
}

/** @param {HTMLElement} card */
function slider(card) {
  const label = /** @type {HTMLElement | null} */ (card.querySelector("label.target"));
  const input = label?.querySelector("input");
  const output = label?.querySelector("output");
  if (!label || !input || !output) return;
  const percents = (input.dataset.percents ?? "").split(" ");
  label.hidden = percents.length < 2; // nothing to choose
  const show = () => {
    const percent = percents[Number(input.value)];
    output.textContent = `${percent} %`;
    input.setAttribute("aria-valuetext", `${percent} % precision`);
    for (const part of /** @type {NodeListOf<HTMLElement>} */ (card.querySelectorAll("[data-target]"))) {
      part.classList.toggle("chosen", part.dataset.target === percent);
      if (part.matches(".line")) part.hidden = part.dataset.target !== percent;
    }
  };
  input.addEventListener("input", show);
  show();
}

/**
 * Copy the code beside a button as it is shown. Where a page may not use the clipboard, the code is selected.
 *
 * @param {HTMLButtonElement} button
 */
async function copy(button) {
  const code = /** @type {HTMLElement} */ (button.parentElement?.querySelector("code"));
  const lines = /** @type {HTMLElement} */ (code.cloneNode(true));
  for (const line of lines.querySelectorAll("[hidden]")) line.remove();
  try {
    await navigator.clipboard.writeText(lines.textContent ?? "");
    button.textContent = "Copied";
  } catch {
    getSelection()?.selectAllChildren(code);
    button.textContent = "Selected: press Ctrl+C";
  }
  setTimeout(() => (button.textContent = "Copy"), 3000);
}
