// How one number came about: its rule, and every product that it is the sum of.
//
// explain(...) gives {name, rule, start, terms: [{a, b, ...}], over, value, note}: the value is
// (start + the sum of a * b) / over, rounded to float32; `note` says in words what no product says; `roundings`:
// how many float32 makes beside those of the terms, in what stands around the sum and in the factors' own arithmetic.
// Names of a and b: `namesOf(found, term)`, only where they are read: thousands are not.

import { divisor, seen, softmax, swishSlope } from "./arithmetic.js";
import { plural } from "./dom.js";
import { short } from "./numbers.js";

export const index = (size, n, row, column, channel) =>
  ((n * size[0] + row) * size[1] + column) * size[2] + channel;

// "y[3, 4, 7]", or "y[7]" in a (C,) map, as Python indexes one image's array. name: "x", "dx", "y" or "dy".
export function placeName(name, node, [row, column, channel]) {
  return node.flat[name.at(-1)] ? `${name}[${channel}]` : `${name}[${row}, ${column}, ${channel}]`;
}

// "pixel 3, 4 of y", or "y" where it is a (C,) map.
export const pixelName = (name, node, at) => (node.flat[name.at(-1)] ? name : `pixel ${at.join(", ")} of ${name}`);

export function total({ start, terms, over }) {
  let sum = start ?? 0;
  for (const term of terms) sum += term.a * term.b;
  return Math.fround(sum / (over ?? 1));
}

// [name of a, name of b]: a term's own `left` and `right`, or what the rule's functions make of it.
export const namesOf = ({ left, right }, term) => [left?.(term) ?? term.left, right?.(term) ?? term.right];

// what: "y", "dx" (at: [row, column, channel]), "dweight" ([tap, channel, filter]) or "dbias" ([filter]).
export function explain(step, node, what, n, at) {
  const record = step.seen.get(node.path);
  const found = { start: null, terms: [], over: 1, note: "", roundings: 8, ...RULES[what](step, node, record, n, at) };
  return { value: total(found), ...found };
}

const RULES = { y: ofY, dx: ofDx, dweight: ofWeight, dbias: ofBias };

// Windows, as pixels of y, that saw x's (row, column): visit(tap, i, j), in the order of y's pixels.
export function seers(node, row, column, visit) {
  const [kh, kw] = node.kernel;
  for (let a = kh - 1; a >= 0; a--) {
    const i = (row + node.pad[0] - a) / node.stride[0];
    if (!Number.isInteger(i) || i < 0 || i >= node.out[0]) continue;
    for (let b = kw - 1; b >= 0; b--) {
      const j = (column + node.pad[1] - b) / node.stride[1];
      if (Number.isInteger(j) && j >= 0 && j < node.out[1]) visit(a * kw + b, i, j);
    }
  }
}

// ---------------------------------------------------------------------------------------- forward

function ofY(step, node, { x, y, params, how }, n, at) {
  const [row, column, channel] = at;
  const name = placeName("y", node, at);
  const xAt = (i, j, c) => x.data[index(x.size, n, i, j, c)];
  const here = () => xAt(row, column, channel);
  const terms = [];
  switch (node.kind) {
    case "conv":
    case "linear": {
      const filters = node.out[2];
      const part = x.size[2] / node.groups;
      const first = Math.floor(channel / (filters / node.groups)) * part;
      seen(node, x.size, row, column, (tap, i, j) => {
        for (let c = 0; c < part; c++) {
          terms.push({ a: xAt(i, j, first + c), b: params.weight[(tap * part + c) * filters + channel], tap, channel: c, i, j });
        }
      });
      const start = params.bias ? params.bias[channel] : null;
      const bias = params.bias ? `bias[${channel}] + ` : "";
      return {
        name, start, terms, rule: `${name} = ${bias}the sum of x·weight over ${over(node, part)}`,
        left: (t) => placeName("x", node, [t.i, t.j, first + t.channel]), right: (t) => weightName(node, t.tap, t.channel, channel),
      };
    }
    case "max": {
      const values = [];
      seen(node, x.size, row, column, (tap, i, j) => values.push({ tap, i, j, value: xAt(i, j, channel) }));
      const won = y.winner ? y.winner[index(node.out, n, row, column, channel)] : -1;
      const winner = values.find((v) => v.tap === won) ?? values[0];
      return {
        name, terms: [{ a: winner.value, b: 1, i: winner.i, j: winner.j, left: placeName("x", node, [winner.i, winner.j, channel]), right: "it won" }],
        rule: `${name} = the largest of its window`, values, winner,
        note: `max(${values.map((v) => short(v.value)).join(", ")})`,
      };
    }
    case "average":
      seen(node, x.size, row, column, (tap, i, j) => terms.push({
        a: xAt(i, j, channel), b: 1, tap, i, j, left: placeName("x", node, [i, j, channel]), right: "1",
      }));
      return { name, terms, over: divisor(node, x.size, row, column), rule: `${name} = the mean of its window` };
    case "mean":
      for (let i = 0; i < x.size[0]; i++) {
        for (let j = 0; j < x.size[1]; j++) {
          terms.push({ a: xAt(i, j, channel), b: 1, i, j, left: placeName("x", node, [i, j, channel]), right: "1" });
        }
      }
      return { name, terms, over: terms.length, rule: `${name} = the mean of channel ${channel} over all ${terms.length} pixels` };
    case "relu":
      return { name, terms: [gate(here(), here() > 0 ? 1 : 0, node, at)], rule: `${name} = max(x, 0)`, note: `x = ${short(here())} is ${here() > 0 ? "positive: it passes" : "not positive: 0"}` };
    case "hard-swish": {
      const share = Math.min(Math.max(here() / 6 + 0.5, 0), 1);
      return { name, terms: [gate(here(), share, node, at)], rule: `${name} = x·(x / 6 + 1/2, kept from 0 to 1)` };
    }
    case "dropout":
      return { name, terms: [gate(here(), how.mask ? how.mask[index(x.size, n, ...at)] : 1, node, at)], rule: how.mask ? `${name} = x·mask` : `${name} = x: idle outside training` };
    case "norm": {
      const { mean, var: variance } = y.moments;
      const [w, b, m, v] = [params.weight, params.bias, mean, variance].map((array) => array[channel]);
      return {
        name, start: b, terms: [{ a: w, b: (here() - m) / Math.sqrt(v + node.eps), left: `weight[${channel}]`, right: "(x − mean) / √(var + eps)" }],
        rule: `${name} = weight·(x − mean) / √(var + eps) + bias`,
        note: `weight ${short(w)}, x ${short(here())}, mean ${short(m)}, var ${short(v)}, eps ${node.eps}, bias ${short(b)}; mean and var are ${how.training ? "this batch's" : "the running ones"}`,
      };
    }
    case "sum": {
      const other = how.second.data[index(x.size, n, ...at)];
      return { name, terms: [{ a: here(), b: 1, left: "through", right: "1" }, { a: other, b: 1, left: "around", right: "1" }], rule: `${name} = what came through + what came around` };
    }
    case "softmax": {
      const chances = softmax(x.data, n * x.size[2], x.size[2]);
      const row = x.data.subarray(n * x.size[2], (n + 1) * x.size[2]);
      const spread = Math.max(...row) - Math.min(...row); // rounding x − max moves its exp by as many roundings
      return { name, roundings: 8 + row.length + 2 * spread, terms: [{ a: chances[channel], b: 1, left: "exp(x − max)", right: "over the sum" }], rule: `${name} = exp(x − max) / the sum of all such` };
    }
  }
  const value = y.data[index(node.out, n, ...at)];
  const note = node.kind === "other" ? "computed by Python" : `only the shape changes${node.flat.x ? "" : ": the numbers in the order of rows, columns, channels"}`;
  return { name, terms: [{ a: value, b: 1, left: "x", right: "1" }], rule: `${name} = the same number`, note };
}

const gate = (a, b, node, at) => ({ a, b, i: at[0], j: at[1], left: placeName("x", node, at), right: "gate" });

function over(node, part) {
  const [kh, kw] = node.kernel;
  if (node.flat.x) return `the ${plural(part, "number")} of x`;
  return kh * kw === 1 ? `the ${plural(part, "channel")} of one pixel` : `a window of ${kh}×${kw} pixels and ${plural(part, "channel")}`;
}

export function weightName(node, tap, c, f) {
  if (node.kind === "linear") return `weight[${c}, ${f}]`;
  return `weight[${Math.floor(tap / node.kernel[1])}, ${tap % node.kernel[1]}, ${c}, ${f}]`;
}

// --------------------------------------------------------------------------------------- backward

function ofDx(step, node, { x, y, dx, dy, grads, params, how }, n, at) {
  const [row, column, channel] = at;
  const name = placeName("dx", node, at);
  const dyAt = (i, j, f) => dy[index(node.out, n, i, j, f)];
  const dyName = (i, j, f) => placeName("dy", node, [i, j, f]);
  const pass = (b, rule, note = "") => ({ name, rule, note, terms: [{ a: dyAt(...at), b, i: row, j: column, left: dyName(...at), right: "slope" }] });
  const terms = [];
  let windows = 0;
  switch (node.kind) {
    case "conv":
    case "linear": {
      const part = x.size[2] / node.groups;
      const own = node.out[2] / node.groups;
      const group = Math.floor(channel / part);
      seers(node, row, column, (tap, i, j) => {
        windows++;
        for (let f = group * own; f < (group + 1) * own; f++) {
          terms.push({ a: dyAt(i, j, f), b: params.weight[(tap * part + (channel % part)) * node.out[2] + f], tap, i, j, filter: f });
        }
      });
      return {
        name, terms, windows, rule: `${name} = the sum of dy·weight over ${node.flat.x ? `the ${plural(own, "output")}` : `${plural(own, "filter")} and the ${plural(windows, "window")} that saw this pixel`}`,
        left: (t) => dyName(t.i, t.j, t.filter), right: (t) => weightName(node, t.tap, channel % part, t.filter),
      };
    }
    case "max":
    case "average":
      seers(node, row, column, (tap, i, j) => {
        windows++;
        const won = node.kind === "max" && y.winner?.[index(node.out, n, i, j, channel)] === tap;
        const share = node.kind === "max" ? Number(won) : 1 / divisor(node, x.size, i, j);
        terms.push({ a: dyAt(i, j, channel), b: share, tap, i, j, left: dyName(i, j, channel), right: node.kind === "max" ? (won ? "it won" : "it lost") : "1 / area" });
      });
      return { name, terms, windows, rule: node.kind === "max" ? `${name} = the sum of dy of the windows that this pixel won` : `${name} = the sum of dy / area of the windows that saw this pixel` };
    case "mean": {
      const pixels = x.size[0] * x.size[1];
      return { name, over: pixels, terms: [{ a: dyAt(0, 0, channel), b: 1, left: dyName(0, 0, channel), right: "1" }], rule: `${name} = dy[${channel}] / ${pixels}: each pixel gets an equal share` };
    }
    case "relu": {
      const open = y.data[index(x.size, n, ...at)] > 0;
      return pass(Number(open), `${name} = dy where y > 0, else 0`, open ? "y is positive: the gate was open" : "y is 0: the gate was shut");
    }
    case "hard-swish":
      return pass(swishSlope(x.data[index(x.size, n, ...at)]), `${name} = dy·slope: 0 up to −3, 1 from 3 on, x / 3 + 1/2 between`);
    case "dropout":
      return pass(how.mask ? how.mask[index(x.size, n, ...at)] : 1, `${name} = dy${how.mask ? "·mask" : ": idle outside training"}`);
    case "norm": {
      const scale = params.weight[channel] / Math.sqrt(y.moments.var[channel] + node.eps);
      if (!how.training) return pass(scale, `${name} = dy·weight / √(var + eps)`);
      const normal = (x.data[index(x.size, n, ...at)] - y.moments.mean[channel]) / Math.sqrt(y.moments.var[channel] + node.eps);
      const rows = dy.length / node.out[2];
      const means = [grads.bias[channel] / rows, grads.weight[channel] / rows];
      const factors = [[dyAt(...at), dyName(...at)], [-means[0], "−mean(dy)"], [-normal * means[1], "−x̂·mean(dy·x̂)"]];
      return {
        name, terms: factors.map(([a, left]) => ({ a, b: scale, left, right: "weight / √(var + eps)" })),
        rule: `${name} = (dy − mean(dy) − x̂·mean(dy·x̂))·weight / √(var + eps)`,
        note: `since mean and var came from the batch; mean(dy) = dbias[${channel}] / ${rows} = ${short(means[0])}, mean(dy·x̂) = dweight[${channel}] / ${rows} = ${short(means[1])}, x̂ = ${short(normal)}`,
      };
    }
    case "sum":
      return pass(1, `${name} = dy, through and around alike`);
    case "softmax": {
      const first = index(y.size, n, 0, 0, 0);
      const own = y.data[first + channel];
      for (let k = 0; k < y.size[2]; k++) terms.push({ a: dyAt(0, 0, k), b: own * (Number(k === channel) - y.data[first + k]), k });
      return {
        name, terms, roundings: 8 + terms.length, rule: `${name} = y·(dy − the sum of y·dy) = the sum of dy·(y's slope in x[${channel}])`,
        left: (t) => dyName(0, 0, t.k), right: (t) => (t.k === channel ? `y[${channel}]·(1 − y[${channel}])` : `−y[${channel}]·y[${t.k}]`),
      };
    }
  }
  return { name, value: dx[index(x.size, n, ...at)], rule: `${name} = dy in the shape of x`, note: "" };
}

function ofWeight(step, node, { x, y, dy }, n, [tap, channel, filter]) {
  const terms = [];
  if (node.kind === "norm") {
    const spread = Math.sqrt(y.moments.var[filter] + node.eps);
    eachOutput(step, node, (image, row, column) => terms.push({
      a: dy[index(node.out, image, row, column, filter)], b: (x.data[index(x.size, image, row, column, filter)] - y.moments.mean[filter]) / spread,
      image, row, column, right: "x̂",
    }));
    return { name: `dweight[${filter}]`, terms, left: dyOf(node, filter), rule: `dweight[${filter}] = the sum of dy·x̂ over ${allPixels(step, node)}, x̂ = (x − mean) / √(var + eps)` };
  }
  const part = x.size[2] / node.groups;
  const c = Math.floor(filter / (node.out[2] / node.groups)) * part + channel;
  eachOutput(step, node, (image, row, column) => {
    const i = row * node.stride[0] - node.pad[0] + Math.floor(tap / node.kernel[1]);
    const j = column * node.stride[1] - node.pad[1] + (tap % node.kernel[1]);
    if (i < 0 || j < 0 || i >= x.size[0] || j >= x.size[1]) return;
    terms.push({ a: x.data[index(x.size, image, i, j, c)], b: dy[index(node.out, image, row, column, filter)], image, row, column, i, j });
  });
  const name = `d${weightName(node, tap, channel, filter)}`;
  return {
    name, terms, rule: `${name} = the sum of x·dy over ${allPixels(step, node)}: what this weight saw, times what it did`,
    left: (t) => `image ${t.image + 1} ${placeName("x", node, [t.i, t.j, c])}`, right: (t) => placeName("dy", node, [t.row, t.column, filter]),
  };
}

function ofBias(step, node, { dy }, n, [filter]) {
  const terms = [];
  eachOutput(step, node, (image, row, column) => terms.push({
    a: dy[index(node.out, image, row, column, filter)], b: 1, image, row, column, right: "1",
  }));
  return { name: `dbias[${filter}]`, terms, left: dyOf(node, filter), rule: `dbias[${filter}] = the sum of dy over ${allPixels(step, node)}` };
}

// The name of a term's dy, with its image.
const dyOf = (node, filter) => (t) => `image ${t.image + 1} ${placeName("dy", node, [t.row, t.column, filter])}`;

export function eachOutput(step, node, visit) {
  for (let image = 0; image < step.count; image++) {
    for (let row = 0; row < node.out[0]; row++) {
      for (let column = 0; column < node.out[1]; column++) visit(image, row, column);
    }
  }
}

// "all pixels of all 2 images".
export function allPixels(step, node) {
  const images = step.count === 1 ? "the image" : `all ${step.count} images`;
  return node.flat.y ? images : `all pixels of ${images}`;
}
