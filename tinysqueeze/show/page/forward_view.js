// A layer on the way up: its input, the window over it, filter and products, its output.

import { h, plural, write } from "./dom.js";
import { grid } from "./grids.js";
import { mosaic, pixelMap, pixelText, strips } from "./maps.js";
import { seen, divisor } from "./arithmetic.js";
import { short } from "./numbers.js";
import { index, namesOf, pixelName, placeName, weightName } from "./terms.js";

export const isConv = (node) => node.kind === "conv" || node.kind === "linear";
const isPool = (node) => node.kind === "max" || node.kind === "average";
export const isWide = (node) => (isConv(node) ? node.kernel[0] * node.kernel[1] > 1 : isPool(node)); // a window of several pixels

// The kernel's place of a node's window: [row, column, height, width] over x.
export const windowOver = (node, [row, column]) =>
  node.kernel ? [row * node.stride[0] - node.pad[0], column * node.stride[1] - node.pad[1], ...node.kernel] : [row, column, 1, 1];

// The pixel of y whose window has its centre nearest to x's pixel: that window covers it, if any does.
export const lookingAt = (node, pixel) =>
  node.kernel ? pixel.map((place, k) => Math.round((place + node.pad[k] - (node.kernel[k] - 1) / 2) / node.stride[k])) : pixel;

// Which channel of x is looked at.
function channelOf({ node, view, group, part, origin }) {
  if (isConv(node)) return group * part + view.inp;
  return node.kind === "flatten" ? origin[2] : view.out;
}

export function forwardView(set) {
  let shown = null; // what was drawn last
  const flat = () => shown.node.kind === "flatten";
  const pixelOfFlat = ([row, column]) => set({ out: (row * shown.record.x.size[1] + column) * shown.record.x.size[2] + shown.origin[2] });
  const input = pixelMap("x", {
    pick: (...pixel) => (flat() ? pixelOfFlat(pixel) : set({ at: lookingAt(shown.node, pixel) })),
    move: (...pixel) => (flat() ? pixelOfFlat(pixel) : set({ at: pixel })), // by keys from window to window
    turn: (by) => set(flat() ? { out: (view) => view.out + by } : { inp: (view) => view.inp + by }),
  });
  const output = pixelMap("y", { pick: (row, column) => set({ at: [row, column] }), turn: (by) => set({ out: (view) => view.out + by }) });
  const inputs = mosaic("channels of x", (inp) => set({ inp }));
  const outputs = mosaic("channels of y", (out) => set({ out }));
  const pick = (tap) => set({ tap });
  const seenGrid = grid(pick);
  const filter = grid(pick);
  const products = grid(pick);
  const grids = h("div", { className: "ts-grids", role: "group", "aria-label": "Window, filter and products" },
    seenGrid.element, h("span", { className: "ts-sign", "aria-hidden": "true" }, "·"), filter.element, h("span", { className: "ts-sign", "aria-hidden": "true" }, "="), products.element);
  const gridLine = h("p", { className: "ts-line" });
  const alone = pixelMap("one channel alone", { pick: (row, column) => set({ at: [row, column] }), turn: (by) => set({ inp: (view) => view.inp + by }) });
  const shares = mosaic("channels of x, each alone", (inp) => set({ inp }));
  const matrix = strips((term) => set({ term }));
  const sums = h("div", { className: "ts-sums" }, grids, gridLine);
  const maps = h("div", { className: "ts-pair" }, h("div", {}, input.element, inputs.element), h("div", {}, output.element, outputs.element));
  const element = h("section", { "aria-label": "Forward" }, maps,
    h("div", { className: "ts-grids" }, sums, alone.element, shares.element), matrix.element);

  function draw(ui) {
    shown = ui;
    const { node, record, view, theme } = ui;
    const { x, y } = record;
    const conv = isConv(node);
    const image = node.sources[0] === 0;
    const window = node.kind === "mean" ? [0, 0, x.size[0], x.size[1]] : node.kind === "flatten" ? [...ui.origin.slice(0, 2), 1, 1] : windowOver(node, view.at);
    const xChannel = channelOf(ui);
    input.draw({
      title: `${image ? "the image" : "x"}, channel ${xChannel}`, ...x, n: view.n, channel: xChannel, theme, windows: [window],
      cursor: node.kind === "flatten" ? { at: ui.origin.slice(0, 2), size: x.size } : { at: view.at, size: y.size },
      text: `${node.flat.x ? plural(x.size[2], "number") : `${plural(x.size[0] * x.size[1], "pixel")} in ${plural(x.size[2], "channel")}`}; framed: what ${pixelName("y", node, view.at)} sees`,
    });
    output.draw({ title: `y, channel ${view.out}`, ...y, n: view.n, channel: view.out, at: view.at, theme, text: pixelText(placeName("y", node, [...view.at, view.out]), y.data, y.size, view.n, view.at, view.out) });
    if (!isWide(node)) sums.hidden = true;
    alone.element.hidden = shares.element.hidden = !conv || y.size[0] * y.size[1] === 1 || ui.part === 1;
    matrix.element.hidden = !conv;
  }

  // All channels; window, filter and products.
  function numbers(ui) {
    const { node, record: { x, y }, view, theme } = ui;
    inputs.element.hidden = x.size[2] === 1 || node.kind === "flatten";
    inputs.draw({ title: `x: all ${plural(x.size[2], "channel")}`, ...x, n: view.n, channel: channelOf(ui), theme });
    outputs.element.hidden = y.size[2] === 1;
    outputs.draw({ title: `y: all ${plural(y.size[2], "channel")}`, ...y, n: view.n, channel: view.out, theme });
    sums.hidden = !isWide(node);
    for (const one of [...grids.querySelectorAll(".ts-sign"), filter.element, products.element]) one.hidden = !isConv(node);
    if (sums.hidden) return;
    if (isConv(node)) drawProducts(ui, ui.group * ui.part + view.inp);
    else drawPool(ui, view.out);
  }

  // What says the same in other words, a frame later.
  function rest(ui) {
    const { node, view, theme, found, lit } = ui;
    if (!isConv(node)) return;
    if (!alone.element.hidden) drawAlone(ui);
    const one = node.kernel[0] * node.kernel[1] === 1;
    const term = found.terms[view.term];
    const [left, right] = term ? namesOf(found, term) : [];
    const what = node.flat.x
      ? `The ${plural(ui.part, "number")} of x (first line), column ${view.out} of the weights (second), their products (third)` : one
      ? `The channel column: the ${plural(ui.part, "channel")} of ${pixelName("x", node, windowOver(node, view.at).slice(0, 2))} (first line), filter ${view.out} (second), their products (third)`
      : `The same as im2col: row ${ui.patchRow} of the patches (first line) times column ${view.out} of the weights (second), products (third)`;
    matrix.draw({
      title: what, rows: [found.terms.map((t) => t.a), found.terms.map((t) => t.b), found.terms.map((t) => t.a * t.b)],
      until: lit ?? Infinity, chosen: view.term, theme,
      text: `${matrixText(ui)}. ${term ? `Term ${view.term + 1}: ${left} ${short(term.a)} · ${right} ${short(term.b)} = ${short(term.a * term.b)}` : "This window sees padding only: there is no term"}`,
    });
  }

  function drawProducts({ node, record, view, theme, found, lit, part }, inp) {
    const [kh, kw] = node.kernel;
    const weights = Array.from({ length: kh * kw }, (_, tap) => record.params.weight[(tap * part + view.inp) * node.out[2] + view.out]);
    const values = weights.map(() => null);
    const order = new Map();
    seen(node, record.x.size, ...view.at, (tap, i, j) => { values[tap] = record.x.data[index(record.x.size, view.n, i, j, inp)]; });
    found.terms.forEach((term, k) => { if (term.channel === view.inp) order.set(term.tap, k); });
    const each = values.map((v, tap) => (v === null ? null : v * weights[tap]));
    const common = { size: [kh, kw], chosen: view.tap, theme, lit: lit === null ? null : (tap) => (order.get(tap) ?? Infinity) < lit };
    seenGrid.draw({ title: `window, channel ${inp}`, values, ...common });
    filter.draw({ title: `filter ${view.out}, channel ${view.inp}`, values: weights, ...common });
    products.draw({ title: "products", values: each, ...common });
    const sum = each.reduce((a, b) => a + (b ?? 0), 0);
    write(gridLine, `Channel ${view.inp} gives ${short(sum)}; the sum over all ${part} channels${record.params.bias ? " and the bias" : ""} is y. Chosen: ${weightName(node, view.tap, view.inp, view.out)} = ${short(weights[view.tap])}.`);
  }

  // What each input channel adds to all of y's channel: y is the sum of these maps, and the bias.
  let kept = {};
  function drawAlone({ node, record, view, theme, part, step, group }) {
    const now = [step, node, view.n, view.out];
    if (now.some((value, i) => value !== kept.of?.[i])) kept = { of: now, maps: sharesOf(node, record, view.n, view.out, part, group * part) };
    const [row, column] = view.at;
    const bias = record.params.bias ? " and the bias" : "";
    alone.draw({
      title: `channel ${view.inp} alone, through filter ${view.out}`, ...kept.maps, channel: view.inp, at: view.at, theme,
      text: `${short(kept.maps.data[index(kept.maps.size, 0, row, column, view.inp)])} at pixel ${row}, ${column}: y's channel ${view.out} is the sum of ${part} such maps${bias}`,
    });
    shares.draw({ title: `y, channel ${view.out} = the sum of these${bias}: each channel of x alone`, ...kept.maps, channel: view.inp, theme });
  }

  function drawPool({ node, record, view, theme, found }, channel) {
    const values = Array(node.kernel[0] * node.kernel[1]).fill(null);
    seen(node, record.x.size, ...view.at, (tap, i, j) => { values[tap] = record.x.data[index(record.x.size, view.n, i, j, channel)]; });
    const winner = found.winner?.tap ?? -1;
    seenGrid.draw({ title: `window, channel ${channel}`, size: node.kernel, values, chosen: winner, theme });
    write(gridLine, node.kind === "max"
      ? `The winner is ${short(found.value)}, framed; on the way back it alone gets this pixel's dy.`
      : `The mean of ${divisor(node, record.x.size, ...view.at)} numbers is ${short(found.value)}.`);
  }

  return { element, draw, numbers, rest };
}

// The convolution of each input channel with its slice of a filter, no bias: a map of `part` channels. first: x's own
// number of the first one.
function sharesOf(node, { x, params }, n, filter, part, first) {
  const [height, width] = node.out;
  const [kh, kw] = node.kernel;
  const sums = new Float64Array(height * width * part);
  for (let tap = 0; tap < kh * kw; tap++) { // by tap, since this is drawn at each choice: a visit a product is slow
    const weights = Array.from({ length: part }, (_, c) => params.weight[(tap * part + c) * node.out[2] + filter]);
    for (let row = 0; row < height; row++) {
      const i = row * node.stride[0] - node.pad[0] + Math.floor(tap / kw);
      if (i < 0 || i >= x.size[0]) continue;
      for (let column = 0; column < width; column++) {
        const j = column * node.stride[1] - node.pad[1] + (tap % kw);
        if (j < 0 || j >= x.size[1]) continue;
        const [to, from] = [(row * width + column) * part, index(x.size, n, i, j, first)];
        for (let c = 0; c < part; c++) sums[to + c] += x.data[from + c] * weights[c];
      }
    }
  }
  return { size: [height, width, part], data: Float32Array.from(sums) };
}

function matrixText({ node, step, part }) {
  const rows = step.count * node.out[0] * node.out[1];
  const length = node.kernel[0] * node.kernel[1] * part;
  const groups = node.groups > 1 ? ` (each of ${node.groups} groups)` : "";
  return `(${rows} × ${length}) ${node.flat.x ? "numbers of x" : "patches"} @ (${length} × ${node.out[2] / node.groups}) weights${groups} = all of y`;
}
