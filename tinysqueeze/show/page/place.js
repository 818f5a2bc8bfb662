// Row, column and channels as numbers to type: what a click on the pictures does as well; and the window's slide.

import { attributes, h } from "./dom.js";
import { isConv } from "./forward_view.js";
import { slideButton } from "./walk.js";

export function placeControls(explorer) {
  const slide = slideButton(explorer);
  const fields = {};
  const field = (name, label, read, write) => {
    const change = () => explorer.set(write(Math.round(input.value) || 0));
    const input = h("input", { type: "number", min: "0", "aria-label": label, onchange: change });
    fields[name] = { box: h("label", {}, `${label} `, input), input, read };
    return fields[name].box;
  };
  const element = h("div", { className: "ts-row ts-place", role: "group", "aria-label": "The number looked at" },
    field("row", "row", (view) => view.at[0], (row) => ({ at: (view) => [row, view.at[1]] })),
    field("column", "column", (view) => view.at[1], (column) => ({ at: (view) => [view.at[0], column] })),
    field("out", "output channel", (view) => view.out, (out) => ({ out })),
    field("inp", "input channel", (view) => view.inp, (inp) => ({ inp })),
    slide.element);
  function draw({ view, node, what, part, record: { x, y } }) {
    const size = what === "dx" ? x.size : y.size;
    const most = { row: size[0] - 1, column: size[1] - 1, out: y.size[2] - 1, inp: (what === "dx" ? x.size[2] : part) - 1 };
    const pixels = what === "y" || what === "dx";
    const conv = isConv(node);
    const shown = { row: pixels, column: pixels, out: conv || what !== "dx", inp: (conv && what !== "dbias") || what === "dx" };
    slide.element.hidden = what !== "y" || (most.row === 0 && most.column === 0);
    for (const [name, { box, input, read }] of Object.entries(fields)) {
      box.hidden = !shown[name] || most[name] === 0;
      const value = String(read(view));
      if (input.value !== value) input.value = value;
      attributes(input, { max: most[name] });
    }
  }
  return { element, slide, draw };
}
