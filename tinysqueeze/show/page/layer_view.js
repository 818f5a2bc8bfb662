// Any layer's maps for the photograph: all channels side by side, the one chosen large, and what it took.

import { by, h } from "./dom.js";
import { mosaic, pixelMap, pixelText, scale } from "./maps.js";

export function layerView(header) {
  const layers = layersOf(header);
  const names = layers.map(({ name }, i) => h("option", { value: String(i) }, name));
  const list = h("select", { onchange: () => set({ layer: Number(list.value), channel: null, at: null }) }, ...names);
  const line = h("p", { className: "ts-line" });
  const all = mosaic("all channels", (channel) => set({ channel }));
  const one = pixelMap("one channel", { pick: (row, column) => set({ at: [row, column] }), turn: (step) => set({ channel: state.channel + step }) });
  const element = h("section", { "aria-label": "Layers", hidden: true },
    h("h2", {}, "what every layer makes of it"), h("div", { className: "ts-row" }, h("label", {}, "layer ", list)), line, scale(),
    h("div", { className: "ts-pair" }, h("div", {}, all.element), h("div", {}, one.element)));
  const state = { layer: Math.min(1, layers.length - 1), channel: null, at: null }; // null: the loudest, the middle
  list.value = String(state.layer);
  let shown = null;
  const heard = new WeakMap(); // what a layer's numbers say, once for each photograph

  function set(changes) {
    Object.assign(state, changes);
    if (shown) redraw();
  }

  function draw(now) {
    element.hidden = false;
    shown = now;
    redraw();
    hearAhead();
  }

  function hear({ map, size }) {
    const data = shown.map(map);
    if (!heard.has(data)) heard.set(data, listen(data, size[2]));
    return heard.get(data);
  }

  // All layers, one a moment, before they are chosen: the largest has a million numbers.
  async function hearAhead() {
    const mine = shown;
    for (const layer of layers) {
      await new Promise((go) => setTimeout(go));
      if (shown !== mine) return;
      hear(layer);
    }
  }

  function redraw() {
    const { map: number, nodes, size } = layers[state.layer];
    const { theme, times } = shown;
    const data = shown.map(number);
    const { loudest, silent, most } = hear(layers[state.layer]);
    state.channel = Math.min(Math.max(state.channel ?? loudest, 0), size[2] - 1);
    state.at ??= [Math.floor(size[0] / 2), Math.floor(size[1] / 2)];
    const took = nodes.reduce((sum, i) => sum + times[i], 0);
    line.textContent = `${nodes.map((i) => `${header.nodes[i].path}: ${header.nodes[i].what}`).join("; ")}. ${by(size)} numbers in ${took.toFixed(1)} ms; ${silent} of ${size[2]} channels are silent here.`;
    all.draw({ title: `all ${size[2]} channels`, data, size, channel: state.channel, theme, most });
    one.draw({ title: `channel ${state.channel}`, data, size, channel: state.channel, at: state.at, theme, text: `row ${state.at[0]}, column ${state.at[1]}: ${pixelText("y", data, size, 0, state.at, state.channel)}` });
  }

  return { element, draw, set };
}

// Every map that layers write, in order: its name, its size (H, W, C), the numbers of its nodes.
function layersOf({ nodes, shapes }) {
  const found = new Map();
  nodes.forEach((node, i) => {
    const shape = shapes[node.target];
    const size = shape.length === 3 ? shape : [1, 1, shape[0]];
    if (!found.has(node.target)) found.set(node.target, { map: node.target, size, nodes: [] });
    found.get(node.target).nodes.push(i);
  });
  return [...found.values()].map((one) => ({ ...one, name: `${joint(one.nodes.map((i) => nodes[i].path))}, ${by(one.size)}` }));
}

// ["fire2/expand1x1", "fire2/expand3x3"] -> "fire2/expand1x1 + expand3x3".
function joint([first, ...others]) {
  const module = first.slice(0, first.lastIndexOf("/") + 1);
  return [first, ...others.map((path) => (path.startsWith(module) ? path.slice(module.length) : path))].join(" + ");
}

// The channel with the largest mean, how many are zero everywhere, and the largest number.
function listen(data, channels) {
  const sums = new Float64Array(channels);
  const sounds = new Uint8Array(channels);
  let most = 0;
  for (let i = 0; i < data.length;) {
    for (let c = 0; c < channels; c++, i++) {
      sums[c] += data[i];
      if (data[i] !== 0) sounds[c] = 1;
      most = Math.max(most, Math.abs(data[i]));
    }
  }
  return { loudest: sums.indexOf(Math.max(...sums)), silent: sounds.filter((sound) => !sound).length, most };
}
