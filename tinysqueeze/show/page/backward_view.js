// A layer on the way down: dy, what it sends back to x (col2im adds it up), and the gradients.

import { attributes, button, h, plural, write } from "./dom.js";
import { forkOfX, forkOfY } from "./forks.js";
import { isConv, isWide, windowOver } from "./forward_view.js";
import { grid } from "./grids.js";
import { mosaic, pixelMap, pixelText, strips } from "./maps.js";
import { short } from "./numbers.js";
import { index, namesOf, pixelName, placeName, seers, weightName } from "./terms.js";

// How many windows see each pixel of x: a map of one channel.
export function overlaps(node, [height, width]) {
  const data = new Float32Array(height * width);
  for (let i = 0; i < height; i++) for (let j = 0; j < width; j++) seers(node, i, j, () => data[i * width + j]++);
  return { size: [height, width, 1], data };
}

export function backwardView(set) {
  const tabs = h("div", { className: "ts-tabs", role: "tablist", "aria-label": "Which gradient" });
  const names = ["dx", "dweight", "dbias"];
  const buttons = names.map((what) => button(what, () => set({ what }), { role: "tab", "data-what": what }));
  tabs.append(...buttons);
  tabs.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const to = by && buttons[buttons.indexOf(event.target) + by];
    if (!to) return;
    to.click();
    to.focus();
  });
  const views = { dx: toInput(set), dweight: toWeight(set), dbias: toBias(set) };
  const [below, above] = [0, 0].map(() => h("p", { className: "ts-line ts-fork" }));
  const element = h("section", { "aria-label": "Backward" }, tabs, below, above, ...names.map((what) => views[what].element));
  function draw(ui) {
    const own = ui.record.grads;
    buttons.forEach((one, i) => {
      one.hidden = i > 0 && !own[names[i].slice(1)];
      const here = ui.what === names[i];
      attributes(one, { "aria-selected": here });
      one.tabIndex = here ? 0 : -1;
    });
    tabs.hidden = !own.weight;
    write(below, forkOfY(ui, placeOfDy(ui)));
    write(above, ui.what === "dx" ? forkOfX(ui, [...ui.view.at, ui.view.inp]) : "");
    for (const what of names) {
      views[what].element.hidden = ui.what !== what;
      if (ui.what === what) views[what].draw(ui);
    }
  }
  return { element, draw, numbers: (ui) => views[ui.what].numbers?.(ui), rest: (ui) => views[ui.what].rest?.(ui) };
}

// Each number of x became one of y.
const isAlike = ({ node, record: { x, y } }) => !node.kernel && x.size.every((side, i) => side === y.size[i]);

const outOf = ({ node, view, flat }) => (isConv(node) ? view.out : node.kind === "flatten" ? flat : view.inp);

// The number of dy that is looked at.
const placeOfDy = (ui) => (ui.what === "dx" ? [...(isAlike(ui) ? ui.view.at : ui.view.from), outOf(ui)] : [...ui.view.from, ui.view.out]);

const slopeMap = (set, name = "dy") => pixelMap(name, {
  pick: (row, column) => set({ from: [row, column] }),
  turn: (by) => set({ out: (view) => view.out + by }),
});

// dx: what the windows that saw a pixel send back to it; and what one dy sends to its whole window.
function toInput(set) {
  const slope = slopeMap((changes) => set(alike && changes.from ? { at: changes.from } : changes));
  const slopes = mosaic("channels of dy", (out) => set({ out }));
  const back = pixelMap("dx", { pick: (row, column) => set({ at: [row, column] }), turn: (by) => set({ inp: (view) => view.inp + by }) });
  const backs = mosaic("channels of dx", (inp) => set({ inp }));
  const counts = pixelMap("overlaps");
  const received = grid();
  const sent = grid();
  const grids = h("div", { className: "ts-grids" }, received.element, sent.element, counts.element);
  const row = strips((term) => set({ term }));
  const line = h("p", { className: "ts-line" });
  const element = h("div", {}, h("div", { className: "ts-pair" }, h("div", {}, slope.element, slopes.element), h("div", {}, back.element, backs.element)), grids, line, row.element);
  let counted = {};
  let alike = false;
  function draw(ui) {
    const { node, record, view, theme } = ui;
    const { x, y, dy, dx } = record;
    const conv = isConv(node);
    const windowed = Boolean(node.kernel);
    const windows = [];
    if (windowed) seers(node, ...view.at, (tap, i, j) => windows.push([i, j, 1, 1]));
    else windows.push(y.size[0] * y.size[1] === 1 ? [0, 0, 1, 1] : [...view.at, 1, 1]);
    alike = isAlike(ui);
    const place = placeOfDy(ui);
    const [from, out] = [place.slice(0, 2), place[2]];
    slope.draw({
      title: `dy, channel ${out}`, data: dy, size: y.size, n: view.n, channel: out, at: from, windows, theme,
      text: `${pixelText(placeName("dy", node, [...from, out]), dy, y.size, view.n, from, out)}; framed: ${windowed ? `the ${windows.length === 1 ? "window" : `${windows.length} windows`} that saw` : "what became of"} ${pixelName("x", node, view.at)}`,
    });
    const image = node.sources[0] === 0 ? " (the image's)" : "";
    back.draw({
      title: `dx${image}, channel ${view.inp}`, data: dx, size: x.size, n: view.n, channel: view.inp, at: view.at, theme,
      windows: windowed ? [windowOver(node, view.from)] : [],
      text: pixelText(placeName("dx", node, [...view.at, view.inp]), dx, x.size, view.n, view.at, view.inp) + (windowed ? "; framed: where the chosen dy goes" : ""),
    });
    if (!isWide(node)) grids.hidden = line.hidden = true;
    row.element.hidden = !conv;
  }
  function numbers(ui) {
    const { node, record, view, theme } = ui;
    const { x, y, dy, dx } = record;
    slopes.element.hidden = y.size[2] === 1;
    slopes.draw({ title: `dy: all ${plural(y.size[2], "channel")}`, data: dy, size: y.size, n: view.n, channel: outOf(ui), theme });
    backs.element.hidden = x.size[2] === 1;
    backs.draw({ title: `dx: all ${plural(x.size[2], "channel")}`, data: dx, size: x.size, n: view.n, channel: view.inp, theme });
    grids.hidden = line.hidden = !isWide(node);
    if (grids.hidden) return;
    if (counted.node !== node) counted = { node, ...overlaps(node, record.x.size) };
    drawScatter(ui, isConv(node) ? view.out : view.inp, counted);
  }
  function rest({ node, view, theme, found, lit }) {
    if (!isConv(node)) return;
    const term = found.terms[view.term];
    const [left, right] = term ? namesOf(found, term) : [];
    row.draw({
      title: "dy (first line) times weight (second): their products (third)", theme, until: lit ?? Infinity, chosen: view.term,
      rows: found.terms.length ? [found.terms.map((t) => t.a), found.terms.map((t) => t.b), found.terms.map((t) => t.a * t.b)] : [[0], [0], [0]],
      text: term ? `${node.flat.x ? "dx = dy @ weight.T" : "drows = dy @ weight.T, then col2im adds it up"}. Term ${view.term + 1}: ${left} ${short(term.a)} · ${right} ${short(term.b)} = ${short(term.a * term.b)}` : "no window saw this pixel: dx is 0",
    });
  }
  function drawScatter({ node, record, view, theme, found, part, own }, out, count) {
    const { x, dy, params, y } = record;
    const cells = node.kernel[0] * node.kernel[1];
    const values = Array(cells).fill(null);
    for (const term of found.terms) values[term.tap] = (values[term.tap] ?? 0) + term.a * term.b;
    received.draw({ title: `${placeName("dx", node, [...view.at, view.inp])} receives`, size: node.kernel, values, theme, none: "–" });
    const group = Math.floor(view.inp / (part ?? 1));
    const send = values.map((_, tap) => {
      if (node.kind === "average") return dy[index(y.size, view.n, ...view.from, out)] / cells;
      if (node.kind === "max") return record.y.winner?.[index(y.size, view.n, ...view.from, out)] === tap ? dy[index(y.size, view.n, ...view.from, out)] : 0;
      let sum = 0;
      for (let f = group * own; f < (group + 1) * own; f++) sum += dy[index(y.size, view.n, ...view.from, f)] * params.weight[(tap * part + (view.inp % part)) * node.out[2] + f];
      return sum;
    });
    sent.draw({ title: `${pixelName("dy", node, view.from)} sends to channel ${view.inp}`, size: node.kernel, values: send, theme });
    counts.draw({ title: "how many windows saw each pixel", ...count, at: view.at, theme, text: `${plural(found.windows, "window")} saw pixel ${view.at.join(", ")}` });
    const overlap = node.kernel.some((side, i) => side > node.stride[i]);
    write(line, `Scatter-add: the windows ${overlap ? "overlap, so" : "do not overlap:"} ${plural(found.windows, "share")} ${found.windows === 1 ? "makes" : "add up to"} dx = ${short(found.value)}; a cell is a place in the window that saw the pixel.`);
  }
  return { element, draw, numbers, rest };
}

// dweight: for each pixel, what the weight saw times dy there, added up over all pixels and images.
function toWeight(set) {
  const weights = grid((tap) => set({ tap }));
  const slopes = grid((tap) => set({ tap }));
  const saw = pixelMap("saw");
  const did = slopeMap(set);
  const product = pixelMap("product");
  const inputs = mosaic("channels of x", (inp) => set({ inp }));
  const outputs = mosaic("filters", (out) => set({ out }));
  const line = h("p", { className: "ts-line" });
  const maps = h("div", { className: "ts-grids" }, saw.element, h("span", { className: "ts-sign" }, "·"), did.element, h("span", { className: "ts-sign" }, "="), product.element);
  const element = h("div", {}, h("div", { className: "ts-grids" }, weights.element, slopes.element), maps, line, h("div", { className: "ts-pair" }, inputs.element, outputs.element));
  let kept = {};
  function draw({ step, node, record, view, theme, found, part, group }) {
    const conv = isConv(node);
    const { x, y, dy, grads, params } = record;
    const cells = conv ? node.kernel[0] * node.kernel[1] : 1;
    const at = (tap) => (conv ? (tap * part + view.inp) * node.out[2] + view.out : view.out);
    const list = (array) => Array.from({ length: cells }, (_, tap) => array[at(tap)]);
    const size = conv ? node.kernel : [1, 1];
    const filter = node.flat.x ? `output ${view.out}, input ${view.inp}` : `filter ${view.out}, channel ${view.inp}`;
    const label = conv ? filter : `channel ${view.out}`;
    weights.draw({ title: `weight, ${label}`, size, values: list(params.weight), chosen: view.tap, theme });
    slopes.draw({ title: `dweight, ${label}`, size, values: list(grads.weight), chosen: view.tap, theme });
    if (kept.found !== found || kept.n !== view.n) {
      const [height, width] = y.size;
      const both = { saw: new Float32Array(height * width), product: new Float32Array(height * width) };
      for (const term of found.terms) {
        if (term.image !== view.n) continue;
        const p = term.row * width + term.column;
        both.saw[p] = conv ? term.a : term.b;
        both.product[p] = term.a * term.b;
      }
      kept = { found, n: view.n, ...both };
    }
    const one = [y.size[0], y.size[1], 1];
    const what = conv ? `what ${weightName(node, view.tap, view.inp, view.out)} saw` : "x̂ = (x − mean) / √(var + eps)";
    saw.draw({ title: `${what}, image ${view.n + 1}`, data: kept.saw, size: one, at: view.from, theme, text: short(kept.saw[view.from[0] * y.size[1] + view.from[1]]) });
    did.draw({ title: `dy, channel ${view.out}`, data: dy, size: y.size, n: view.n, channel: view.out, at: view.from, theme, text: short(dy[index(y.size, view.n, ...view.from, view.out)]) });
    product.draw({ title: "their products", data: kept.product, size: one, at: view.from, theme, text: short(kept.product[view.from[0] * y.size[1] + view.from[1]]) });
    const sums = Array.from({ length: step.count }, (_, n) => found.terms.reduce((sum, t) => sum + (t.image === n ? t.a * t.b : 0), 0));
    write(line, `${sums.map((s, n) => `image ${n + 1}: ${short(s)}`).join(" + ")} → ${found.name} = ${short(found.value)}`);
    inputs.element.hidden = !conv;
    if (conv) inputs.draw({ title: "x: choose the channel", ...x, n: view.n, channel: group * part + view.inp, theme });
    outputs.draw({ title: `dy: choose the ${node.flat.x ? "output" : "filter"}`, data: dy, size: y.size, n: view.n, channel: view.out, theme });
  }
  return { element, draw };
}

// dbias: dy added up.
function toBias(set) {
  const slope = slopeMap(set);
  const slopes = mosaic("filters", (out) => set({ out }));
  const element = h("div", { className: "ts-pair" }, slope.element, slopes.element);
  function draw({ node, record: { y, dy }, view, theme, found }) {
    slope.draw({ title: `dy, channel ${view.out}`, data: dy, size: y.size, n: view.n, channel: view.out, at: view.from, theme, text: `all of it, over all images, adds up to ${found.name} = ${short(found.value)}` });
    slopes.draw({ title: `dy: choose the ${node.flat.x ? "output" : "filter"}`, data: dy, size: y.size, n: view.n, channel: view.out, theme });
  }
  return { element, draw };
}
