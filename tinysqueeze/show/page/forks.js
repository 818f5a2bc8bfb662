// Where a map goes to several layers: on the way back what each of them sends adds up.

import { exact } from "./numbers.js";
import { index, placeName } from "./terms.js";

// The layers that get a map, in the order in which their dx come.
const readersOf = ({ nodes }, map) => nodes.toReversed().filter((node) => node.sources.includes(map));

const named = (names) => `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;

// "0.5 of fire2/expand3x3 + (−0.2) of fire2/expand1x1 = 0.3": each one's dx at a place of the map, and their sum.
function added(step, readers, n, at) {
  let sum = 0;
  const parts = readers.map(({ path }) => {
    const { x, dx } = step.seen.get(path);
    const share = dx[index(x.size, n, ...at)];
    sum = Math.fround(sum + share);
    return `${share < 0 ? `(${exact(share)})` : exact(share)} of ${path}`;
  });
  return `${parts.join(" + ")} = ${exact(sum)}`;
}

// What is said of y at a place of dy: "" where one layer only gets y.
export function forkOfY({ state, step, view, node }, [row, column, channel]) {
  const readers = readersOf(state, node.target);
  if (readers.length < 2) return "";
  const names = named(readers.map(({ path }) => path).toReversed());
  return `y goes to ${names}: dy is the sum of what they send back, of the dx of each. ${placeName("dy", node, [row, column, channel])} = ${added(step, readers, view.n, [row, column, node.offset + channel])}.`;
}

// What is said of x at a place of dx: "" where this layer only gets x.
export function forkOfX({ state, step, view, node }, at) {
  const [map] = node.sources;
  const readers = readersOf(state, map);
  if (readers.length < 2) return "";
  const others = readers.filter((one) => one !== node).map(({ path }) => path).toReversed();
  const whole = map === 0 ? "The image's" : "What made x gets the sum as its dy";
  return `x goes to ${others.length > 1 ? named(others) : others[0]}, too: this dx is one share. ${whole}: ${added(step, readers, view.n, at)}.`;
}
