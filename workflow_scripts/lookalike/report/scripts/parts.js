/** Unfold the part of the appendix that the address leads to. */
export function startAppendix() {
  const follow = () => {
    let id = location.hash.slice(1);
    try {
      id = decodeURIComponent(id);
    } catch {
      return;
    }
    const target = id ? document.getElementById(id) : null;
    const closed = [];
    for (let part = target?.closest("details"); part; part = part.parentElement?.closest("details")) closed.push(part);
    if (!target || !closed.length || closed.every((part) => part.open)) return;
    for (const part of closed) part.open = true;
    target.scrollIntoView();
  };
  addEventListener("hashchange", follow);
  follow();
}
