// The loss: each image's softmax with class names, and what goes back to the logits.

import { h } from "./dom.js";
import { percent, short } from "./numbers.js";

const MOST_BARS = 10;

export function lossView() {
  const rows = h("div", { className: "ts-losses" });
  const rule = h("p", { className: "ts-rule" }, "loss = the mean of −ln(softmax of the right class); dlogits = (softmax − target) / N");
  const numbers = h("p", { className: "ts-numbers" });
  const onward = h("p", { className: "ts-line" }, "A dlogit says how much the loss grows with that logit. “next” carries them back through the layers, the last one first.");
  const element = h("section", { "aria-label": "The loss" }, rule, numbers, rows, onward);
  let drawn = [];
  function draw({ step, state, view }) {
    if (drawn[0] === step && drawn[1] === view.n) return;
    drawn = [step, view.n];
    const right = step.chances.map((row, n) => row[step.labels[n]]);
    numbers.textContent = `= −(${right.slice(0, 4).map((p) => `ln ${short(p)}`).join(" + ")}${right.length > 4 ? " + …" : ""}) / ${right.length} = ${short(step.loss)}`;
    element.dataset.value = String(step.loss);
    rows.replaceChildren(...step.chances.map((_, n) => table(step, state, n, n === view.n)));
  }
  return { element, draw };
}

function table(step, state, n, current) {
  const chances = step.chances[n];
  const label = step.labels[n];
  const order = chances.map((_, k) => k).toSorted((a, b) => chances[b] - chances[a]).slice(0, MOST_BARS);
  if (!order.includes(label)) order[order.length - 1] = label;
  const classes = chances.length;
  const logits = step.maps[state.output].data;
  const rows = order.map((k) => h("tr", { className: k === label ? "ts-right" : "" },
    h("th", { scope: "row" }, state.className(k) + (k === label ? " (right)" : "")),
    h("td", {}, short(logits[n * classes + k])),
    h("td", { className: "ts-bar" }, h("span", { style: `width:${(100 * chances[k]).toFixed(1)}%` }), h("b", {}, percent(chances[k]))),
    h("td", {}, short(step.dlogits[n * classes + k]))));
  const caption = `Image ${n + 1}, ${state.className(label)}: −ln ${short(chances[label])} = ${short(-Math.log(chances[label]))}`;
  return h("table", { className: `ts-loss${current ? " ts-now" : ""}` }, h("caption", {}, caption),
    h("thead", {}, h("tr", {}, ...["class", "logit", "softmax", "dlogit"].map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, ...rows));
}
