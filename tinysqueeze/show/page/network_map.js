// The network as its row of volumes: every layer a button with a picture of its map, arms one below another.

import { packed, pixelOf } from "./colours.js";
import { by, h, svg } from "./dom.js";
import { sheets } from "./sheets.js";
import { index } from "./terms.js";

const WIDE = 66; // pixels of a column and of a row
const HIGH = 88;
const TOP = 14; // room for the ways around
const LAYER = 64; // a button's width,
const EDGE = 4; // border and padding, as style.css has them

// Where each node stands: {column, row} by path, with the maps' ways as pairs of paths.
export function layout(state) {
  const ranks = state.shapes.map(() => 0);
  const writers = state.shapes.map(() => []);
  const taken = new Set();
  let [rows, columns] = [1, 1];
  const places = new Map();
  const ways = [];
  const main = new Set([state.output]); // the maps on the way through; a bypass stands below the arms
  for (const node of state.nodes.toReversed()) if (main.has(node.target)) main.add(node.sources[0]);
  const arms = state.nodes.some((node) => node.offset > 0) ? 2 : 1;
  for (const node of state.nodes) {
    const column = Math.max(...node.sources.map((source) => ranks[source])) + 1;
    let row = main.has(node.target) ? 0 : arms;
    while (taken.has(`${column} ${row}`)) row++;
    taken.add(`${column} ${row}`);
    rows = Math.max(rows, row + 1);
    columns = Math.max(columns, column + 1);
    places.set(node.path, { column, row });
    node.sources.forEach((source, i) => {
      const from = writers[source].length ? writers[source] : [null]; // null: the image
      for (const path of from) ways.push({ from: path, to: node.path, around: i > 0 });
    });
    writers[node.target].push(node.path);
    ranks[node.target] = Math.max(ranks[node.target], column);
  }
  return { places, ways, columns, rows };
}

const COLOURS = { conv: "conv", linear: "conv", max: "pool", average: "pool", mean: "pool", norm: "norm" };

// goTo(path) is called for the layer chosen, "loss" for the loss.
export function networkMap(state, goTo) {
  const { places, ways, columns, rows } = layout(state);
  const width = (columns + 1) * WIDE;
  const sheet = h("div", { className: "ts-map", role: "group", "aria-label": "The network, layer by layer: left and right arrows move" });
  const inner = h("div", { className: "ts-map-inner" });
  inner.style.cssText = `width:${width}px;height:${TOP + rows * HIGH}px`;
  const lines = svg("svg", { width, height: TOP + rows * HIGH, "aria-hidden": "true" });
  const centre = (path, side) => {
    const { column, row } = path === null ? { column: 0, row: 0 } : places.get(path);
    return [column * WIDE + WIDE / 2 + side * 20, TOP + row * HIGH + 24];
  };
  for (const way of ways) {
    const [x1, y1] = centre(way.from, 1);
    const [x2, y2] = centre(way.to, -1);
    const far = x2 - x1 > WIDE;
    const drop = Math.min(y1, y2) - 44;
    const d = far ? `M${x1},${y1} C${x1 + 30},${drop} ${x2 - 30},${drop} ${x2},${y2}` : `M${x1},${y1} C${x1 + 14},${y1} ${x2 - 14},${y2} ${x2},${y2}`;
    lines.append(svg("path", way.around ? { d, class: "around" } : { d }));
  }
  inner.append(lines);
  const faces = sheets(width, TOP + rows * HIGH);
  const buttons = [];
  const add = (path, label, kind, { column, row }, size) => {
    const face = size ? faceSize(size) : 28;
    const element = h(path === null ? "span" : "button", {
      className: `ts-layer ts-${kind}`, ...(path === null ? {} : { type: "button", tabIndex: -1, onclick: () => goTo(path), title: size ? `${path || "layer"}: ${by(size)}` : label }),
    }, h("span", { className: "ts-face" }), h("span", { className: fits(label) ? "ts-name" : "ts-name ts-cut" }, label));
    element.style.cssText = `left:${column * WIDE}px;top:${TOP + row * HIGH}px`;
    const depth = size ? Math.round(1 + Math.log2(size[2]) * 1.1) : 0; // more channels, more depth
    element.firstChild.style.cssText = `width:${face}px;height:${face}px;--depth:${depth}px`;
    inner.append(element);
    if (path !== null) buttons.push({ path, element });
    return [column * WIDE + (LAYER - face) / 2, TOP + row * HIGH + EDGE, face, face];
  };
  const spots = [add(null, "image", "image", { column: 0, row: 0 }, state.shapes[0])];
  for (const node of state.nodes) spots.push(add(node.path, shortName(node.path), COLOURS[node.kind] ?? "other", places.get(node.path), node.out));
  add("loss", "loss", "loss", { column: columns, row: 0 });
  inner.append(faces.element);
  sheet.append(inner);
  sheet.addEventListener("keydown", (event) => {
    const here = buttons.findIndex((one) => one.element.tabIndex === 0);
    const to = { ArrowLeft: here - 1, ArrowUp: here - 1, ArrowRight: here + 1, ArrowDown: here + 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (to === undefined || !buttons[to]) return;
    goTo(buttons[to].path);
    buttons[to].element.focus();
    event.preventDefault();
  });
  let painted = [];
  let faceList = []; // of what is painted, the image's first: {path, size, colour}
  let current = null;
  function draw({ step, path, backward, n, theme, imageColour }) {
    const now = [step, backward, n, theme];
    if (now.some((value, i) => value !== painted[i])) {
      painted = now;
      faceList = [{ path: null, size: state.shapes[0], colour: (i, j) => packed(imageColour(i, j)) },
        ...state.nodes.map((node) => ({ path: node.path, size: node.out, colour: loudest(step, node.path, backward, n, theme) }))];
      faceList.forEach(({ size, colour }, i) => faces.put(spots[i], size, colour));
    }
    if (path === current) return;
    current = path;
    for (const { path: own, element } of buttons) {
      const here = own === path;
      element.tabIndex = here ? 0 : -1;
      if (here) element.setAttribute("aria-current", "true");
      else element.removeAttribute("aria-current");
      if (here) requestAnimationFrame(() => own === current && uncover(element));
    }
  }
  function uncover({ offsetLeft: left }) {
    const room = sheet.clientWidth;
    if (left < sheet.scrollLeft || left + WIDE > sheet.scrollLeft + room) sheet.scrollLeft = left - room / 2 + WIDE / 2;
  }
  return { element: sheet, draw, faces: () => faceList };
}

// "fire2/expand1x1" -> "expand1x1" under its module's number: "fire2/ expand1x1" breaks into two lines.
export const shortName = (path) => path.replace("/", "/\u200b").replaceAll("_", "_\u200b");

// In three lines below its map; only what does not is cut, since each box that cuts costs in every frame.
const fits = (label) => label.length < 25 && label.split("\u200b").every((part) => part.length < 12);

// Larger maps have larger faces.
const faceSize = (size) => 2 * Math.min(Math.round(8 + 2.5 * Math.log2(Math.max(...size.slice(0, 2)))), 21);

// The channel with the most in it, y on the way up and dy on the way down: the colour of its pixels.
function loudest(step, path, backward, n, theme) {
  const { y, dy } = step.seen.get(path);
  const data = backward ? dy : y.data;
  const [height, width, channels] = y.size;
  const start = index(y.size, n, 0, 0, 0);
  const energy = new Float64Array(channels);
  for (let p = 0, at = start; p < height * width; p++) for (let c = 0; c < channels; c++, at++) energy[c] += Math.abs(data[at]);
  const best = Math.max(energy.indexOf(Math.max(...energy)), 0);
  let most = 0;
  for (let p = 0; p < height * width; p++) most = Math.max(most, Math.abs(data[start + p * channels + best]));
  return (row, column) => pixelOf(data[start + (row * width + column) * channels + best], most, theme);
}

// An image in its own colours: colour(i, j) -> [r, g, b].
export function paintImage(canvas, [height, width], colour) {
  canvas.width = width;
  canvas.height = height;
  const picture = new ImageData(width, height);
  for (let p = 0; p < height * width; p++) picture.data.set([...colour(Math.floor(p / width), p % width), 255], 4 * p);
  canvas.getContext("2d").putImageData(picture, 0, 0);
}
