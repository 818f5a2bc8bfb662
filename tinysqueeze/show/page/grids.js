// Small grids of numbers: window times filter is products; where the winner stood; what windows send back.

import { cellStyle } from "./colours.js";
import { attributes, h, style, write } from "./dom.js";
import { short } from "./numbers.js";

// A grid of [height, width] cells. values: numbers, null where there is none, which `none` says.
// most: what has the full colour, by default the largest. chosen: the cell with a frame. choose(cell) makes cells buttons.
export function grid(choose) {
  const box = h("div", { className: "ts-cells" });
  const title = h("div", { className: "ts-title" });
  const element = h("div", { className: "ts-grid", role: "group" }, title, box);
  // More digits, when a cell is pointed at: titles of all cells, each time, are a tenth of a frame's work.
  const say = ({ target }) => { target.title = Number.isFinite(target.shown) ? short(target.shown) : ""; };
  for (const event of ["pointerover", "focusin"]) box.addEventListener(event, say);
  let made = "";
  function draw({ title: text, size: [height, width], values, chosen = -1, lit = null, theme, most, none = "pad 0" }) {
    write(title, text);
    attributes(element, { "aria-label": text });
    if (made !== `${height} ${width}`) {
      made = `${height} ${width}`;
      box.style.gridTemplateColumns = `repeat(${width}, minmax(24px, 52px))`; // seven digits
      box.classList.toggle("ts-many", width > 7);
      box.replaceChildren(...values.map((_, k) => h(choose ? "button" : "span", choose ? { type: "button", className: "ts-cell", onclick: () => choose(k) } : { className: "ts-cell" })));
    }
    const full = most ?? Math.max(...values.map((v) => Math.abs(v ?? 0)));
    values.forEach((value, k) => {
      const cell = box.children[k];
      cell.classList.toggle("ts-chosen", k === chosen);
      cell.classList.toggle("ts-dim", lit !== null && !lit(k));
      const look = value === null ? "" : cellStyle(value, full, theme);
      if (cell.shown === value && cell.css === look) return;
      cell.shown = value;
      if (cell.title) say({ target: cell });
      write(cell, value === null ? none : shortest(value));
      style(cell, look);
    });
  }
  return { element, draw };
}

// Three digits: what fits in a cell.
function shortest(value) {
  const size = Math.abs(value);
  const text = value === 0 ? "0" : size >= 0.001 && size < 10000 ? String(Number(value.toPrecision(3))) : value.toExponential(0);
  return text.replaceAll("-", "−").replace(/^(−?)0\./, "$1.");
}
