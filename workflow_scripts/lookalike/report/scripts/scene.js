/**
 * One thing on a drawing: a circle, a line or a rectangle, by what it has.
 *
 * @typedef {object} Mark
 * @property {number} x
 * @property {number} y
 * @property {number} [r]
 * @property {number} [x2]
 * @property {number} [y2]
 * @property {number} [w]
 * @property {number} [h]
 * @property {string} [fill]
 * @property {string} [stroke]
 * @property {number} [width]
 * @property {number[]} [dash]
 * @property {number} alpha  of a rectangle: of its area, the border is opaque
 */

/**
 * @param {HTMLCanvasElement} canvas
 * @param {{width: number, height: number}} size
 * @param {Mark[]} marks
 */
export function draw(canvas, size, marks) {
  const ratio = Math.min(3, devicePixelRatio || 1);
  if (canvas.width !== Math.round(size.width * ratio) || canvas.height !== Math.round(size.height * ratio)) {
    canvas.width = Math.round(size.width * ratio);
    canvas.height = Math.round(size.height * ratio);
  }
  const pen = canvas.getContext("2d");
  if (!pen) return;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, size.width, size.height);
  for (const mark of marks) {
    pen.globalAlpha = mark.alpha;
    pen.beginPath();
    if (mark.r !== undefined) pen.arc(mark.x, mark.y, mark.r, 0, 2 * Math.PI);
    else if (mark.w !== undefined) pen.rect(mark.x, mark.y, mark.w, mark.h ?? 0);
    else {
      pen.moveTo(mark.x, mark.y);
      pen.lineTo(mark.x2 ?? mark.x, mark.y2 ?? mark.y);
    }
    if (mark.fill) {
      pen.fillStyle = mark.fill;
      pen.fill();
    }
    if (mark.stroke) {
      if (mark.w !== undefined) pen.globalAlpha = 1;
      pen.strokeStyle = mark.stroke;
      pen.lineWidth = mark.width ?? 1;
      pen.setLineDash(mark.dash ?? []);
      pen.stroke();
    }
  }
  pen.globalAlpha = 1;
}

const escaped = (/** @type {string} */ text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

/**
 * @param {{width: number, height: number}} size
 * @param {Mark[]} marks
 * @param {string} title
 */
export function toSvg(size, marks, title) {
  const number = (/** @type {number} */ value) => String(Math.round(value * 10) / 10);
  const drawn = marks.map((mark) => {
    const paint = [
      `fill="${mark.fill ?? "none"}"`,
      mark.stroke ? `stroke="${mark.stroke}" stroke-width="${mark.width ?? 1}"` : "",
      mark.dash?.length ? `stroke-dasharray="${mark.dash.join(" ")}"` : "",
      mark.alpha < 1 ? `${mark.w === undefined ? "opacity" : "fill-opacity"}="${mark.alpha}"` : "",
    ].filter(Boolean);
    const [x, y] = [number(mark.x), number(mark.y)];
    if (mark.r !== undefined) return `<circle cx="${x}" cy="${y}" r="${mark.r}" ${paint.join(" ")}/>`;
    if (mark.w !== undefined)
      return `<rect x="${x}" y="${y}" width="${number(mark.w)}" height="${number(mark.h ?? 0)}" ${paint.join(" ")}/>`;
    return `<line x1="${x}" y1="${y}" x2="${number(mark.x2 ?? 0)}" y2="${number(mark.y2 ?? 0)}" ${paint.join(" ")}/>`;
  });
  const { width, height } = size;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">`,
    `<title>${escaped(title)}</title>`,
    ...drawn,
    "</svg>\n",
  ].join("\n");
}
