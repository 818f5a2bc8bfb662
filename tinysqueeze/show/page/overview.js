// Every channel of every layer at once, as columns of small maps; what feeds the map pointed at is lit.

import { pixelOf } from "./colours.js";
import { clamp, h, svg, write } from "./dom.js";
import { feeders, behindText, writersOf } from "./feeds.js";
import { layout, shortName } from "./network_map.js";
import { reachChoice } from "./reach.js";
import { sheets } from "./sheets.js";
import { unhurried } from "./slices.js";

const CELL = 18; // CSS pixels of a small map,
const EACH = CELL + 2; // and with the gap
const MOST_ROWS = 12; // of small maps, one below another
const BETWEEN = 34; // columns, where the lines run
const LEAST = 58; // pixels of a column: its name
const LABEL = 38;
const MARGIN = 500; // pixels beside what is seen that are painted as well

// Where each layer's small maps stand: [{node, left, top, across, channels}], the image's first (node null).
function blocksOf(state) {
  const { places, columns } = layout(state);
  const blocks = [{ node: null, column: 0, row: 0, channels: state.shapes[0][2] }];
  for (const node of state.nodes) blocks.push({ node, ...places.get(node.path), channels: node.out[2] });
  const lefts = [4];
  for (const block of blocks) block.across = Math.ceil(block.channels / MOST_ROWS);
  for (let c = 0; c < columns; c++) lefts.push(lefts[c] + BETWEEN + Math.max(LEAST, ...blocks.filter((b) => b.column === c).map((b) => b.across * EACH)));
  const bottoms = lefts.map(() => 0);
  for (const block of blocks.toSorted((a, b) => a.row - b.row)) {
    Object.assign(block, { left: lefts[block.column], top: bottoms[block.column] + LABEL });
    bottoms[block.column] = block.top + EACH * Math.ceil(block.channels / block.across) + 8;
  }
  return { blocks, width: lefts.at(-1), height: Math.max(...bottoms) };
}

const cellOf = (block, channel) => [block.left + (channel % block.across) * EACH, block.top + Math.floor(channel / block.across) * EACH];

// go(path, channel) is called for the map chosen; path null: a channel of the image.
export function overview(state, go) {
  const { blocks, width, height } = blocksOf(state);
  const blockOf = new Map(blocks.map((block) => [block.node, block]));
  const writer = writersOf(state);
  const pictures = sheets(width, height);
  const ways = ["weak", "middle", "strong", "own"].map((className) => svg("path", { class: className }));
  const lines = svg("svg", { width, height, "aria-hidden": "true" });
  lines.append(...ways);
  const inner = h("div", { className: "ts-map-inner" }, pictures.element, lines);
  inner.style.cssText = `width:${width}px;height:${height}px`;
  for (const { node, left, top } of blocks) {
    const label = h("span", { className: "ts-name ts-cut" }, node ? shortName(node.path) : "image");
    label.style.cssText = `left:${left}px;top:${top - LABEL}px`;
    inner.append(label);
  }
  const frame = h("div", {
    className: "ts-overview", tabIndex: 0, role: "application",
    "aria-label": "All channels of all layers. Left and right change the layer, up and down the channel, Enter goes there.",
  }, inner);
  const line = h("p", { className: "ts-line", role: "status" });
  const reach = reachChoice(blocks, () => redraw());
  const element = h("details", { className: "ts-all" }, h("summary", {}, "every layer's channels at once"), reach.element, frame, line);
  let shown = null;
  let painted = [];
  let here; // the layer that was looked at
  let fed = []; // what feeds the map pointed at
  let pointed = null; // {block, channel}: under the pointer, or where the keys are

  element.addEventListener("toggle", () => element.open && shown && redraw());
  frame.addEventListener("scroll", () => paint());
  frame.addEventListener("pointermove", (event) => point(under(event)));
  frame.addEventListener("pointerleave", () => point(null));
  frame.addEventListener("click", (event) => follow(under(event)));
  frame.addEventListener("blur", () => point(null));
  frame.addEventListener("keydown", (event) => {
    const { block, channel } = pointed ?? chosen();
    if (event.key === "Enter" || event.key === " ") follow({ block, channel });
    const at = blocks.indexOf(block);
    const to = {
      ArrowLeft: [at - 1, channel], ArrowRight: [at + 1, channel], ArrowUp: [at, channel - 1], ArrowDown: [at, channel + 1],
      Home: [0, channel], End: [blocks.length - 1, channel], Enter: [at, channel], " ": [at, channel],
    }[event.key];
    if (!to) return;
    event.preventDefault();
    const next = blocks[clamp(to[0], 0, blocks.length - 1)];
    point({ block: next, channel: clamp(to[1], 0, next.channels - 1) });
    uncover(next);
  });

  function uncover({ left, across }) {
    const room = frame.clientWidth;
    if (left < frame.scrollLeft || left + across * EACH > frame.scrollLeft + room) frame.scrollLeft = left - room / 2;
  }

  // The small map at a pointer, null between them.
  function under(event) {
    const edge = inner.getBoundingClientRect();
    const [x, y] = [event.clientX - edge.left, event.clientY - edge.top];
    for (const block of blocks) {
      const [column, row] = [Math.floor((x - block.left) / EACH), Math.floor((y - block.top) / EACH)];
      const channel = row * block.across + column;
      if (column >= 0 && column < block.across && row >= 0 && channel < block.channels) return { block, channel };
    }
    return null;
  }

  function point(to) {
    if (to?.block === pointed?.block && to?.channel === pointed?.channel) return;
    pointed = to;
    light();
  }

  function follow(to) {
    if (to) go(to.block.node?.path ?? null, to.channel);
  }

  const chosen = () => ({ block: blockOf.get(shown.node ?? null), channel: shown.node ? shown.channel : 0 });

  // now: {step, node, channel, n, backward, theme}: node and channel are what is looked at.
  function draw(now) {
    shown = now;
    if (element.open) redraw();
  }

  function redraw() {
    const key = [shown.step, shown.n, shown.backward, shown.theme, reach.value()];
    if (key.some((part, i) => part !== painted[i])) {
      painted = key;
      for (const block of blocks) block.painted = false;
    }
    light();
    const moved = shown.node !== here;
    here = shown.node;
    requestAnimationFrame(() => { // when the page is laid out
      if (moved) uncover(chosen().block);
      paint();
    });
  }

  // The maps in view, and some beside them, when it is known what has the full colour.
  async function paint() {
    const [from, to] = [frame.scrollLeft - MARGIN, frame.scrollLeft + frame.clientWidth + MARGIN];
    const now = painted;
    const wanted = () => painted === now;
    const due = blocks.filter((block) => !block.painted && block.left <= to && block.left + block.across * EACH >= from);
    await unhurried(reach.prepare(due, mapsOf, shown.n), () => {}, wanted);
    if (!wanted()) return;
    for (const block of due) {
      block.painted = true;
      const [size, data] = mapsOf(block);
      const [rows, columns, channels] = size;
      const start = shown.n * rows * columns * channels;
      const full = reach.full(block, mapsOf, shown.n);
      for (let c = 0; c < channels; c++) {
        const most = full(c);
        pictures.put([...cellOf(block, c), CELL, CELL], size, (i, j) => pixelOf(data[start + (i * columns + j) * channels + c], most, shown.theme));
      }
    }
    say();
  }

  function mapsOf({ node }) {
    if (!node) return [state.shapes[0], shown.step.maps[0].data];
    const { y, dy } = shown.step.seen.get(node.path);
    return [y.size, shown.backward ? dy : y.data];
  }

  // What is pointed at, or else looked at, with what has the full colour there.
  function say() {
    const { block, channel } = pointed ?? chosen();
    const full = reach.full(block, mapsOf, shown.n);
    write(line, words(block, channel, fed) + (full ? ` ${reach.words(block, full(channel))}` : ""));
  }

  // Frames around what feeds the map pointed at, or else the one looked at, and lines from there.
  function light() {
    const { block, channel } = pointed ?? chosen();
    const drawn = { weak: "", middle: "", strong: "", own: "" };
    const square = ([x, y]) => `M${x - 1},${y - 1}h${EACH}v${EACH}h-${EACH}z`;
    const [x, y] = cellOf(block, channel);
    drawn.own = square([x, y]);
    const found = block.node ? feeders(block.node, channel, shown.step.seen.get(block.node.path)) : [];
    const most = Math.max(...found.map(({ share }) => share ?? 1));
    fed = found.map((one) => ({ ...one, ...writer(one.map, one.channel) }));
    for (const { node, channel: own, share } of fed) {
      const [left, top] = cellOf(blockOf.get(node), own);
      const strength = share === null || share > most / 2 ? "strong" : share > most / 6 ? "middle" : "weak";
      const [x1, y1, y2] = [left + EACH, top + CELL / 2, y + CELL / 2];
      drawn[strength] += `${square([left, top])}M${x1},${y1}C${x1 + 20},${y1} ${x - 22},${y2} ${x - 2},${y2}`;
    }
    for (const way of ways) way.setAttribute("d", drawn[way.getAttribute("class")]);
    say();
  }

  function words({ node, channels }, channel, from) {
    if (!node) return `Channel ${channel} of the image's ${channels}. Point at a small map to see what feeds it; a click goes to it.`;
    const name = `${node.path || "the layer"}, channel ${channel}${node.target === state.output && node.out[0] * node.out[1] === 1 ? ` (${state.className(channel)})` : ""}`;
    const behind = behindText(from, (one) => (one ? one.out[2] : state.shapes[0][2]));
    return shown.backward ? `${name}: on the way back its dy goes to ${behind}.` : `${name}: made of ${behind}.`;
  }

  return { element, draw };
}
