// How far one scale of colours reaches: over a map, over its layer's, its module's, or the whole network's maps.

import { h } from "./dom.js";
import { short } from "./numbers.js";

const moduleOf = ({ path }) => path.split("/")[0];

const known = new WeakMap(); // an array's largest numbers: a step never changes its arrays

// The largest number, sign aside, of each channel of image n, and of all; pauses after each row.
function* peaksOf([[rows, columns, channels], data], n) {
  if (!known.has(data)) known.set(data, []);
  if (known.get(data)[n]) return;
  const each = new Float32Array(channels);
  for (let row = 0, at = n * rows * columns * channels; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      for (let c = 0; c < channels; c++, at++) {
        const size = Math.abs(data[at]);
        if (size > each[c] && size < Infinity) each[c] = size;
      }
    }
    yield;
  }
  known.get(data)[n] = { each, most: each.reduce((a, b) => Math.max(a, b), 0) };
}

// A choice between them. blocks: [{node, ...}], node null for the image, whose numbers are of another kind:
// its scale is its own. changed() is called when the learner chooses.
export function reachChoice(blocks, changed) {
  const modular = blocks.find(({ node }) => node?.path.includes("/"));
  const choices = { map: "each map", layer: "each layer", ...(modular && { module: `each module, such as ${moduleOf(modular.node)}` }), network: "the whole network" };
  const list = h("select", { onchange: changed }, ...Object.entries(choices).map(([value, words]) => h("option", { value }, words)));
  list.value = "layer";
  const element = h("div", { className: "ts-row" }, h("label", {}, "one colour scale for ", list));

  // Those that share a block's scale.
  function alike(block) {
    if (!block.node || list.value === "map" || list.value === "layer") return [block];
    return blocks.filter(({ node }) => node && (list.value === "network" || moduleOf(node) === moduleOf(block.node)));
  }

  // Looks up what `full` needs for some blocks, with pauses. mapsOf(block): [size, data].
  function* prepare(some, mapsOf, n) {
    for (const block of new Set(some.flatMap(alike))) yield* peaksOf(mapsOf(block), n);
  }

  // What has the full colour in each channel of a block, a function of it; null before it was looked up.
  function full(block, mapsOf, n) {
    const peaks = alike(block).map((one) => known.get(mapsOf(one)[1])?.[n]);
    if (!peaks.every(Boolean)) return null;
    const most = Math.max(...peaks.map((one) => one.most));
    return list.value === "map" ? (channel) => peaks[0].each[channel] : () => most;
  }

  function words({ node }, most) {
    const where = list.value === "map" ? "this map" : !node ? "the image" : { layer: node.path || "the layer", module: moduleOf(node), network: "the whole network" }[list.value];
    return `Full colour stands for ${short(most)} or ${short(-most)}, the most in ${where}.`;
  }

  return { element, prepare, full, words, value: () => list.value };
}
