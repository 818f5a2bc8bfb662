// What the sliders draw: bars, a Fire module, a network as its row of volumes. Lines of text stand beside them.

import { by, h } from "./dom.js";
import { thousands } from "./numbers.js";

const SLANT = [0.34, 0.26]; // how far one unit of depth goes right and up

// An element of a drawing.
function draw(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// A drawing that keeps its size on a narrow screen and is scrolled there, by keys as well.
function sheet(width, height, label, children) {
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, ...children);
  svg.style.minWidth = `${Math.min(width, 660)}px`;
  svg.style.maxWidth = `${width}px`;
  return h("div", { className: "ts-sheet", tabIndex: 0, role: "group", "aria-label": "the picture" }, svg);
}

const note = (x, y, text, look = "") => draw("text", { x, y, class: `ts-note ${look}` }, text);

// A solid box: `side` for pixels, `width` for channels, its front cut into [[share, colour class]...].
function volume(x, bottom, width, side, parts) {
  const [right, up] = [side * SLANT[0], side * SLANT[1]];
  const sum = parts.reduce((all, [part]) => all + part, 0);
  const shapes = [];
  let at = x;
  for (const [part, colour] of parts) {
    const w = (width * part) / sum;
    shapes.push(draw("rect", { x: at, y: bottom - side, width: w, height: side, class: colour }));
    shapes.push(draw("polygon", { points: `${at},${bottom - side} ${at + w},${bottom - side} ${at + w + right},${bottom - side - up} ${at + right},${bottom - side - up}`, class: `${colour} ts-top` }));
    at += w;
  }
  shapes.push(draw("polygon", { points: `${at},${bottom} ${at},${bottom - side} ${at + right},${bottom - side - up} ${at + right},${bottom - up}`, class: `${parts.at(-1)[1]} ts-side` }));
  return { shapes, end: at + right, foot: x + width / 2, top: [x + width / 2 + right / 2, bottom - side - up] };
}

// measures: [[name, [{name, value, text}...]]...]; each bar relative to the longest of its measure.
export function barsOf(measures) {
  const kinds = ["ts-expand1", "ts-squeeze", "ts-expand3"];
  return h("div", { className: "ts-bars" }, ...measures.map(([title, options]) => {
    const most = Math.max(...options.map((one) => one.value)) || 1;
    return h("div", { className: "ts-measure" }, h("div", { className: "ts-title" }, title), ...options.map((one, i) =>
      h("div", { className: "ts-option" }, h("span", {}, one.name),
        h("span", { className: "ts-track" }, h("span", { className: `ts-length ${kinds[i]}`, style: `width:${((100 * one.value) / most).toFixed(2)}%` })), h("span", {}, one.text))));
  }));
}

// A Fire module with its widths in proportion to the channels.
export function fireOf({ squeeze, expand1x1, expand3x3 }, channels, size) {
  const filters = expand1x1 + expand3x3;
  const scale = 190 / Math.max(channels, filters, squeeze);
  const [side, bottom] = [120, 215];
  const middle = bottom - side / 2 - (side * SLANT[1]) / 2;
  const input = volume(10, bottom, channels * scale, side, [[1, "ts-picture"]]);
  const narrow = volume(input.end + 130, bottom, squeeze * scale, side, [[1, "ts-squeeze"]]);
  const arms = [[expand1x1, "ts-expand1"], [expand3x3, "ts-expand3"]].filter(([count]) => count);
  const output = volume(narrow.end + 170, bottom, filters * scale, side, arms);
  const between = input.end + 65;
  const beyond = narrow.end + 85;
  const shapes = [...input.shapes, ...narrow.shapes, ...output.shapes];
  for (const [one, name, depth] of [[input, "input", channels], [narrow, "squeezed", squeeze], [output, "output", filters]]) {
    shapes.push(note(one.foot, bottom + 18, by([size, size, depth])), note(one.foot, bottom + 33, name, "ts-quiet"));
  }
  shapes.push(
    draw("path", { d: `M${input.end + 6},${middle} H${narrow.end - side * SLANT[0] - squeeze * scale - 8}`, class: "ts-arrow" }),
    note(between, middle - 26, "squeeze"), note(between, middle - 11, `${squeeze} of 1×1×${channels}`, "ts-quiet"),
    note(between, middle + 17, `${thousands(channels * squeeze + squeeze)}`, "ts-quiet"),
  );
  for (const [count, colour] of arms) {
    const wide = colour === "ts-expand3";
    const y = middle + (wide ? 56 : -56); // the arc comes three quarters as far
    const text = wide ? y + 6 : y - 31;
    const kernel = wide ? "3×3" : "1×1";
    shapes.push(
      draw("path", { d: `M${narrow.end + 6},${middle} C${narrow.end + 40},${y} ${beyond + 45},${y} ${narrow.end + 162},${middle}`, class: `ts-arrow ${colour}` }),
      note(beyond, text, `expand ${kernel}`), note(beyond, text + 15, `${count} of ${kernel}×${squeeze}`, "ts-quiet"),
      note(beyond, text + 30, thousands((wide ? 9 : 1) * squeeze * count + count), "ts-quiet"),
    );
  }
  const label = `A Fire module: input ${by([size, size, channels])}, ${squeeze} squeeze filters of 1×1, then ${expand1x1} filters of 1×1 and ${expand3x3} of 3×3 side by side; output ${by([size, size, filters])}`;
  return sheet(output.end + 12, bottom + 42, label, shapes);
}

// One side of an image as a row of pixels, padding faint, and each place of the window below it.
export function placesOf(size, kernel, stride, pad, places) {
  const cell = 30;
  const starts = Array.from({ length: places }, (_, place) => place * stride - pad);
  const isSeen = (i) => starts.some((start) => start <= i && i < start + kernel);
  const shapes = [];
  let unseen = 0;
  for (let i = -pad; i < size + pad; i++) {
    const inside = i >= 0 && i < size;
    if (inside && !isSeen(i)) unseen++;
    const look = !inside ? "ts-padding" : isSeen(i) ? "ts-picture" : "ts-unseen";
    const x = (i + pad) * cell;
    shapes.push(draw("rect", { x, y: 0, width: cell, height: cell, class: look }));
    if (look === "ts-unseen") shapes.push(draw("path", { d: `M${x},15l15,-15M${x},30l30,-30M${x + 15},30l15,-15`, class: "ts-hatch" }));
    shapes.push(note(x + cell / 2, 19, inside ? String(i) : "0", inside && isSeen(i) ? "ts-dark" : "ts-quiet"));
  }
  starts.forEach((start, place) => {
    const [x, y] = [(start + pad) * cell, cell + 6 + place * 22];
    shapes.push(draw("rect", { x, y, width: kernel * cell, height: 18, class: "ts-expand1" }), note(x + (kernel * cell) / 2, y + 13, String(place), "ts-dark"));
  });
  const label = `${size} pixels in a row, ${pad} of padding at each end; a window of ${kernel} with stride ${stride} has ${places} places; pixels that it never sees: ${unseen}`;
  return sheet((size + 2 * pad) * cell, cell + 10 + places * 22, label, shapes);
}

// A network's steps as volumes; sides and widths go with the roots of pixels and channels.
export function networkOf(steps) {
  const bottom = 240;
  const shapes = [];
  let last = null;
  for (const step of [{ name: "image", size: 227, channels: 3, kind: "image" }, ...steps]) {
    const side = step.size > 1 ? 150 * Math.sqrt(step.size / 227) : 14;
    const width = step.size > 1 ? 1.5 * Math.sqrt(step.channels) : 40;
    const parts = {
      image: [[1, "ts-picture"]], conv: [[1, "ts-learns"]], pool: [[1, "ts-pooling"]],
      fire: [[step.expand1x1, "ts-expand1"], [step.expand3x3, "ts-expand3"]].filter(([count]) => count),
    }[step.kind];
    const x = last ? Math.max(last.end + 10, last.foot + 46) : 16;
    const here = volume(x, bottom - 78 + side / 2, width, side, parts);
    shapes.push(...here.shapes, note(here.foot, bottom + 20, step.name));
    shapes.push(note(here.foot, bottom + 34, step.size > 1 ? `${step.size}²` : "", "ts-quiet"), note(here.foot, bottom + 47, `×${step.channels}`, "ts-quiet"));
    if (step.around) {
      const [x1, y1] = last.top;
      const [x2, y2] = here.top;
      shapes.push(draw("path", { d: `M${x1},${y1} C${x1},${y1 - 40} ${x2},${y2 - 40} ${x2},${y2}`, class: `ts-arrow ts-around-${step.around}` }));
    }
    last = here;
  }
  const label = `The network from image to class scores: ${steps.map((step) => `${step.name} ${by([step.size, step.size, step.channels])}`).join(", ")}`;
  return h("div", {}, sheet(last.end + 20, bottom + 56, label, shapes), legend());
}

const legend = () => h("p", { className: "ts-line ts-legend" }, ...[
  ["ts-learns", "convolution"], ["ts-pooling", "pool"], ["ts-expand1", "Fire: 1×1 expand"], ["ts-expand3", "Fire: 3×3 expand"],
].map(([colour, name]) => h("span", {}, h("span", { className: `ts-length ${colour}`, "aria-hidden": "true" }), name)));
