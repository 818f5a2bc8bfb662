// A panel of sliders: its controls, the table and sentences that follow them, and the picture below.

import { onTheme, themeOf } from "./colours.js";
import { h } from "./dom.js";
import { PANELS } from "./panels.js";

// What anywidget and the page call: model's "panel" is {name, title, controls, data}, "values" by control.
// Returns what frees the listeners and the observer when the view goes.
export function render({ model, el }) {
  const { name, title, controls, data } = model.get("panel");
  const values = { ...model.get("values") };
  const fields = controls.map((control) => (control.options ? choice : slider)({ ...control, marks: data.axes?.[control.name] }, (value) => {
    values[control.name] = value;
    model.set("values", { ...values });
    model.save_changes();
    draw();
  }));
  const table = h("table", { className: "ts-count" });
  const lines = h("div", { "aria-live": "polite" });
  const picture = h("div", {});
  const root = h("section", { className: "ts-explorer ts-panel", "aria-label": title },
    h("h2", {}, title), h("div", { className: "ts-controls" }, ...fields.map((field) => field.element)), h("div", { className: "ts-told" }, table, lines), picture);
  el.append(root);

  function draw() {
    const theme = root.dataset.theme = themeOf(el);
    const shown = PANELS[name](values, data, theme);
    fields.forEach((field, i) => field.show(values[controls[i].name]));
    table.replaceChildren(...rowsOf(shown));
    table.hidden = !shown.rows;
    lines.replaceChildren(...shown.lines.map((line) => h("p", {}, line)));
    picture.replaceChildren(shown.picture);
  }

  function follow() { // Python set them
    const now = model.get("values");
    if (controls.every((control) => values[control.name] === now[control.name])) return;
    Object.assign(values, now);
    draw();
  }
  const life = new AbortController();
  model.on("change:values", follow);
  onTheme(draw, life.signal);
  draw();
  return () => {
    model.off("change:values", follow);
    life.abort();
  };
}

function rowsOf({ head, rows = [] }) {
  const top = head ? [h("thead", {}, h("tr", {}, h("td", {}), ...head.map((name) => h("th", { scope: "col" }, name))))] : [];
  return [...top, h("tbody", {}, ...rows.map(([first, ...rest]) => h("tr", {}, h("th", { scope: "row" }, first), ...rest.map((cell) => h("td", {}, cell)))))];
}

// marks: values that have a tick.
function slider({ name, label, low, high, step, start, marks }, changed) {
  const input = h("input", { type: "range", min: String(low), max: String(high), step: String(step), value: String(start), className: `ts-${name}` });
  const ticks = marks && h("datalist", { id: `ts-ticks-${name}` }, ...marks.map((value) => h("option", { value: String(value) })));
  if (ticks) input.setAttribute("list", ticks.id);
  input.addEventListener("input", () => changed(Number(input.value)));
  const output = h("output", {});
  const element = h("label", { className: "ts-control" }, h("span", {}, label), input, output, ticks);
  return { element, show(value) { input.value = String(value); output.textContent = String(value); } };
}

function choice({ name, label, options }, changed) {
  const input = h("select", { className: `ts-${name}` }, ...options.map((option) => h("option", {}, option)));
  input.addEventListener("change", () => changed(options[input.selectedIndex]));
  return { element: h("label", { className: "ts-control" }, h("span", {}, label), input), show(value) { input.selectedIndex = options.indexOf(value); } };
}
