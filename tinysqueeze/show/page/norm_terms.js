// The batch's own mean and variance, which a batch norm in training makes its numbers with, as sums of their own.

import { allPixels, eachOutput, index, placeName, total } from "./terms.js";

const kept = new WeakMap(); // a layer's record -> channel -> its sums, the same objects as long as it is the same step

// What a number of a layer is made of that is a sum itself: as `explain` gives it, and `held`, the array's own number.
export function madeOf(step, node, what, channel) {
  const record = step.seen.get(node.path);
  if (node.kind !== "norm" || !record.how.training || what === "dbias") return [];
  if (!kept.has(record)) kept.set(record, new Map());
  const sums = kept.get(record);
  if (!sums.has(channel)) sums.set(channel, momentsOf(step, node, record, channel));
  return sums.get(channel);
}

function momentsOf(step, node, { x, y }, channel) {
  const mean = y.moments.mean[channel];
  const sum = (name, held, of, factors, left, right) => {
    const terms = [];
    eachOutput(step, node, (image, i, j) => terms.push({ ...factors(x.data[index(x.size, image, i, j, channel)]), image, i, j }));
    const rule = `${name}[${channel}] = the mean of ${of} over ${allPixels(step, node)}`;
    const found = { name: `${name}[${channel}]`, held, rule, start: null, terms, over: terms.length, note: "", roundings: 8, left, right };
    return { ...found, value: total(found) };
  };
  const xOf = (t) => `image ${t.image + 1} ${placeName("x", node, [t.i, t.j, channel])}`;
  return [
    sum("mean", mean, "x", (a) => ({ a, b: 1 }), xOf, () => "1"),
    sum("var", y.moments.var[channel], "(x − mean)²", (value) => ({ a: value - mean, b: value - mean }), (t) => `${xOf(t)} − mean`, () => "x − mean"),
  ];
}
