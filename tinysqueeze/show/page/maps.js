// Pictures of maps: one channel pixel by pixel, all channels as a mosaic, a long row of numbers.

import { colourOf, packed, pixelOf, pixelScale } from "./colours.js";
import { attributes, clamp, figure, h, style, write } from "./dom.js";
import { short } from "./numbers.js";
import { unhurried } from "./slices.js";
import { index } from "./terms.js";

const GROUND = { light: [255, 255, 255], dark: [23, 23, 28] };

function largest(data, from = 0, to = data.length) {
  let most = 0;
  for (let i = from; i < to; i++) {
    const size = Math.abs(data[i]);
    if (size > most) most = size;
  }
  return most;
}

// A place for pictures of H x W pixels, each stretched over all of it: begin(height, width) gives {pixels, across,
// show}: set pixels[row * across + column], then show(). The canvas only grows, since a new size costs more
// than the pixels; beyond the picture's edge, where a browser may round, one more pixel stays clear.
function painting() {
  const canvas = h("canvas", { width: 1, height: 1 });
  const context = canvas.getContext("2d", { willReadFrequently: true }); // small, and set pixel by pixel
  const element = h("div", { className: "ts-painting" }, canvas);
  function begin(height, width) {
    const picture = new ImageData(width + 1, height + 1);
    const show = () => {
      if (canvas.width <= width) canvas.width = width + 1;
      if (canvas.height <= height) canvas.height = height + 1;
      context.putImageData(picture, 0, 0);
      style(canvas, `width:${(100 * canvas.width) / width}%;height:${(100 * canvas.height) / height}%`);
    };
    return { pixels: new Uint32Array(picture.data.buffer), across: width + 1, show };
  }
  function paint(height, width, fill) {
    const { pixels, across, show } = begin(height, width);
    fill(pixels, across);
    show();
  }
  return { element, begin, paint };
}

// Where keys move a pixel; null for a key that does not.
export function moved([row, column], [height, width], event) {
  const to = {
    ArrowUp: [row - 1, column], ArrowDown: [row + 1, column], ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1],
    Home: event.ctrlKey ? [0, 0] : [row, 0], End: event.ctrlKey ? [height - 1, width - 1] : [row, width - 1],
  }[event.key];
  return to ? [clamp(to[0], 0, height - 1), clamp(to[1], 0, width - 1)] : null;
}

export const channelStep = (event) => ({ "+": 1, "=": 1, "-": -1 })[event.key] ?? 0;

// What the colours of all maps mean.
export const scale = (...more) => h("p", { className: "ts-line ts-scale" }, "colours: ", h("span", { className: "ts-ramp", "aria-hidden": "true" }),
  " negative, zero, positive; the strongest of a picture has the full colour.", ...more);

export const legend = () => scale(" A blue frame is what you chose, a green one what it sees.",
  " x is what a layer gets, y what it makes of it; dx and dy: how much the loss grows with each of their numbers.");

// One channel of a map; a click or a key picks a pixel.
// pick(row, column) and turn(+1 or -1: another channel) are called for the user's wishes; move(row, column) for
// those by key where they go over other pixels than the picture's: `cursor`, {at, size}, of what is drawn.
export function pixelMap(name, { pick, turn, move = pick } = {}) {
  const { element: picture, paint } = painting();
  const mark = h("div", { className: "ts-mark" });
  const boxes = h("div", {});
  const frame = h("div", { className: "ts-pixels", tabIndex: pick ? 0 : -1, role: pick ? "application" : "img" }, picture, boxes, mark);
  const { element, heading, line } = figure(name, frame);
  let shown = { size: [1, 1, 1], cursor: { at: [0, 0], size: [1, 1, 1] } };
  let painted = [];
  const place = (box, [row, column, height, width]) => {
    const [h0, w0] = shown.size;
    style(box, `top:${(100 * row) / h0}%;left:${(100 * column) / w0}%;height:${(100 * height) / h0}%;width:${(100 * width) / w0}%`);
  };
  if (pick) {
    frame.addEventListener("pointerdown", (event) => {
      const edge = picture.getBoundingClientRect();
      pick(
        clamp(Math.floor(((event.clientY - edge.top) / edge.height) * shown.size[0]), 0, shown.size[0] - 1),
        clamp(Math.floor(((event.clientX - edge.left) / edge.width) * shown.size[1]), 0, shown.size[1] - 1),
      );
    });
    frame.addEventListener("keydown", (event) => {
      const to = moved(shown.cursor.at, shown.cursor.size, event);
      if (to) move(...to);
      else if (channelStep(event) && turn) turn(channelStep(event));
      else return;
      event.preventDefault();
    });
  }
  // map {data, size}; n, channel: what of it; at: the pixel picked; windows: [[row, column, h, w]...].
  function draw({ title, data, size, n = 0, channel = 0, at, cursor = { at: at ?? [0, 0], size }, windows = [], text, theme, most }) {
    shown = { size, cursor };
    write(heading, title);
    const now = [data, n, channel, theme, most];
    if (now.some((value, i) => value !== painted[i])) {
      painted = now;
      const [height, width] = size;
      const start = index(size, n, 0, 0, channel);
      let full = most;
      if (!full) {
        full = 0;
        for (let p = 0; p < height * width; p++) full = Math.max(full, Math.abs(data[start + p * size[2]]));
      }
      paint(height, width, (pixels, across) => {
        for (let y = 0, at = start; y < height; y++) {
          for (let x = 0; x < width; x++, at += size[2]) pixels[y * across + x] = pixelOf(data[at], full, theme);
        }
      });
      style(frame, `aspect-ratio:${width} / ${height};max-width:min(100%, ${Math.max(width, height) <= 2 ? 72 : 240}px)`);
    }
    mark.hidden = !at;
    if (at) place(mark, [at[0], at[1], 1, 1]);
    while (boxes.children.length > windows.length) boxes.lastChild.remove();
    while (boxes.children.length < windows.length) boxes.append(h("div", { className: "ts-box" }));
    windows.forEach((window, i) => place(boxes.children[i], window));
    write(line, text);
    attributes(frame, { "aria-label": `${title}. ${text}${pick ? " Arrow keys move, plus and minus change the channel." : ""}` });
  }
  return { element, draw, frame };
}

const WIDEST = 520; // CSS pixels of a mosaic
const AT_ONCE = 60000; // numbers in the first frame: of more the picture is coarse, and whole when that is painted, too

const gapOf = ([height, width]) => (height * width > 1 ? 1 : 0); // pixels between channels

// Paints every so manieth row and column of all channels and shows it when it is whole; pauses after each row.
function* sideBySide(begin, { data, size, n, columns, rows, theme, pixel, every }) {
  const [height, width, channels] = size;
  const [high, wide] = [Math.ceil(height / every) + gapOf(size), Math.ceil(width / every) + gapOf(size)];
  const { pixels, across, show } = begin(rows * high, columns * wide);
  pixels.fill(packed(GROUND[theme]));
  const corners = Int32Array.from({ length: channels }, (_, k) => Math.floor(k / columns) * high * across + (k % columns) * wide);
  for (let y = 0; y < height; y += every) { // in the order of the numbers in memory
    for (let x = 0; x < width; x += every) {
      const [to, from] = [(y / every) * across + x / every, index(size, n, y, x, 0)];
      for (let k = 0; k < channels; k++) pixels[corners[k] + to] = pixel(data[from + k]);
    }
    yield;
  }
  show();
}

// All channels side by side; a click or the arrow keys choose one.
export function mosaic(name, choose) {
  const { element: picture, begin } = painting();
  const mark = h("div", { className: "ts-mark" });
  const frame = h("div", { className: "ts-mosaic", tabIndex: 0, role: "slider", "aria-label": name }, picture, mark);
  const { element, heading, line } = figure(name, frame, "ts-mosaic-figure");
  let grid = { columns: 1, rows: 1, channels: 1, channel: 0 };
  let painted = [];
  frame.addEventListener("pointerdown", (event) => {
    const edge = picture.getBoundingClientRect();
    const column = Math.floor(((event.clientX - edge.left) / edge.width) * grid.columns);
    const row = Math.floor(((event.clientY - edge.top) / edge.height) * grid.rows);
    const channel = row * grid.columns + column;
    if (channel >= 0 && channel < grid.channels) choose(channel);
  });
  frame.addEventListener("keydown", (event) => {
    const jump = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -grid.columns, ArrowDown: grid.columns }[event.key] ?? channelStep(event);
    const to = { Home: 0, End: grid.channels - 1 }[event.key] ?? grid.channel + jump;
    if (!jump && event.key !== "Home" && event.key !== "End") return;
    choose(clamp(to, 0, grid.channels - 1));
    event.preventDefault();
  });
  // most: what has the full colour, by default the largest.
  function draw({ title, data, size, n = 0, channel, theme, most }) {
    const [height, width, channels] = size;
    const columns = Math.min(channels, Math.max(1, Math.ceil(Math.sqrt(channels * 2 * (height / width)))));
    const rows = Math.ceil(channels / columns);
    grid = { columns, rows, channels, channel };
    write(heading, title);
    // a canvas of more pixels than the screen has for it shows every second or third row and column only
    const skip = Math.max(1, Math.floor((columns * width) / (WIDEST * Math.ceil(devicePixelRatio))));
    const now = [data, n, theme, skip];
    if (now.some((value, i) => value !== painted[i])) {
      painted = now;
      const each = height * width * channels;
      const pixel = pixelScale(most ?? largest(data, n * each, (n + 1) * each), theme);
      const painter = (every) => sideBySide(begin, { data, size, n, columns, rows, theme, pixel, every });
      const coarse = skip * Math.ceil(Math.sqrt(each / AT_ONCE) / skip);
      Array.from(painter(coarse));
      const wanted = () => painted === now;
      if (coarse > skip) requestAnimationFrame(() => setTimeout(() => wanted() && unhurried(painter(skip), () => {}, wanted)));
      const [high, wide] = [height, width].map((side) => Math.ceil(side / skip) + gapOf(size));
      style(frame, `aspect-ratio:${columns * wide} / ${rows * high};max-width:min(100%, ${Math.min(WIDEST, columns * Math.max(width * 2, 40))}px)`);
    }
    const [row, column] = [Math.floor(channel / columns), channel % columns];
    style(mark, `top:${(100 * row) / rows}%;left:${(100 * column) / columns}%;height:${100 / rows}%;width:${100 / columns}%`);
    const text = `channel ${channel} of ${channels} (0 to ${channels - 1})`;
    write(line, text);
    attributes(frame, { "aria-label": title, ...range(channel, channels, text) });
  }
  return { element, draw };
}

// What a slider says of itself: the one chosen of so many.
const range = (chosen, count, text) => ({ "aria-valuenow": chosen, "aria-valuemin": 0, "aria-valuemax": count - 1, "aria-valuetext": text });

const MOST_CELLS = 16000; // as wide as a canvas may be

// Rows of numbers one above another, cell by cell, as wide as they are long; a click chooses a column.
export function strips(choose) {
  const { element: picture, paint } = painting();
  const mark = h("div", { className: "ts-mark" });
  const frame = h("div", { className: "ts-strips", tabIndex: 0, role: "slider" }, h("div", { className: "ts-long" }, picture, mark));
  const { element, heading, line } = figure("", frame, "ts-strips-figure");
  let shown = { length: 1, chosen: 0 };
  frame.addEventListener("pointerdown", (event) => {
    const edge = picture.getBoundingClientRect();
    choose(clamp(Math.floor(((event.clientX - edge.left) / edge.width) * shown.length), 0, shown.length - 1));
  });
  frame.addEventListener("keydown", (event) => {
    const to = { ArrowLeft: shown.chosen - 1, ArrowRight: shown.chosen + 1, Home: 0, End: shown.length - 1 }[event.key];
    if (to === undefined) return;
    choose(clamp(to, 0, shown.length - 1));
    event.preventDefault();
  });
  // rows: [[numbers...], ...] of one length; `until`: how many columns are lit.
  function draw({ title, rows, until, chosen, text, theme }) {
    const length = Math.min(rows[0].length, MOST_CELLS);
    shown = { length, chosen };
    const most = rows.map((row) => largest(row));
    const ground = GROUND[theme];
    const dimmed = (rgb) => packed(rgb.map((part, k) => Math.round(ground[k] + (part - ground[k]) / 4)));
    paint(rows.length * 2 - 1, length, (pixels, across) => {
      pixels.fill(packed(ground));
      rows.forEach((row, i) => {
        for (let j = 0; j < length; j++) {
          pixels[2 * i * across + j] = j < until ? pixelOf(row[j], most[i], theme) : dimmed(colourOf(row[j], most[i], theme));
        }
      });
    });
    const cell = clamp(Math.floor(560 / length), 2, 22);
    style(picture.parentElement, `width:${cell * length}px`);
    style(mark, `top:0;height:100%;left:${(100 * chosen) / length}%;width:${100 / length}%`);
    write(heading, title);
    write(line, text + (length < rows[0].length ? ` (the first ${length} are drawn)` : ""));
    attributes(frame, { "aria-label": title, ...range(chosen, length, text) });
    requestAnimationFrame(() => { // when everything is drawn: asking now would lay out the page twice
      const left = cell * chosen;
      if (left < frame.scrollLeft || left > frame.scrollLeft + frame.clientWidth - cell) frame.scrollLeft = left - frame.clientWidth / 2;
    });
  }
  return { element, draw };
}

export const pixelText = (name, data, size, n, [row, column], channel) =>
  `${name} = ${short(data[index(size, n, row, column, channel)])}`;
