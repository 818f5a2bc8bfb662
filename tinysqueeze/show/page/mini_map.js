// The whole network once more, small, on the upper edge of what is in view: while one looks at what stands below
// the map. It is for eyes and pointers only; keys and screen readers have the map itself.

import { h, style, svg, write } from "./dom.js";
import { layout } from "./network_map.js";
import { sheets } from "./sheets.js";

const SPOT = 24; // pixels of a layer, with
const AROUND = 3; // so many around it
const NARROW = 560; // pixels: of less width it is too small to be of use

// map: what networkMap gives. goTo(path) is called for the layer chosen. signal: aborted when the page is done with it.
export function miniMap(state, map, goTo, signal) {
  const { places, ways, columns, rows } = layout(state);
  places.set(null, { column: 0, row: 0 }).set("loss", { column: columns, row: 0 });
  const [width, height] = [(columns + 1) * SPOT, rows * SPOT];
  const middle = (path) => [places.get(path).column, places.get(path).row].map((place) => (place + 0.5) * SPOT);
  const pictures = sheets(width, height);
  const lines = svg("svg", { width, height });
  lines.append(svg("path", { d: ways.filter((way) => !way.around).map(({ from, to }) => `M${middle(from)}L${middle(to)}`).join("") }));
  lines.append(svg("path", { d: `M${middle(null)}L${middle("loss")}m-5,0a5,5,0,1,1,10,0a5,5,0,1,1,-10,0` }));
  const mark = h("div", { className: "ts-mark" });
  const inner = h("div", { className: "ts-map-inner" }, lines, pictures.element, mark);
  inner.style.cssText = `width:${width}px;height:${height}px;transform-origin:0 0`;
  const words = h("p", { className: "ts-line" });
  const box = h("div", {}, inner);
  const strip = h("div", { className: "ts-mini", "aria-hidden": "true", hidden: true }, box, words);
  const element = h("div", { className: "ts-mini-place" }, strip);
  let now = { path: null, words: "" };
  let painted = null;

  // The layer at a pointer, undefined between them.
  function under({ clientX, clientY }) {
    const { left, top, width: wide } = inner.getBoundingClientRect();
    const [column, row] = [clientX - left, clientY - top].map((way) => Math.floor((way * width) / (wide * SPOT)));
    return [...places].find(([path, place]) => path !== null && place.column === column && place.row === row)?.[0];
  }
  box.addEventListener("click", (event) => under(event) !== undefined && goTo(under(event)));
  box.addEventListener("pointermove", (event) => { box.title = under(event) ?? ""; });

  // Where the page scrolls: the page itself, the one around its frame, a notebook's part of it.
  const frame = window.frameElement;
  const around = frame?.ownerDocument ?? document;
  around.addEventListener("scroll", ({ target }) => {
    const here = frame ?? element.getRootNode().host ?? element;
    if (target.contains(here)) follow(below(here, target === around ? 0 : Math.max(target.getBoundingClientRect().top, 0)));
  }, { capture: true, passive: true, signal });

  // Below a bar of the page around that stays where it is, at the edge of what scrolls.
  function below(here, edge) {
    const { left, width: wide } = here.getBoundingClientRect();
    let bar = around.elementFromPoint(left + wide / 2, edge + 1);
    if (!bar || here.contains(bar)) return edge;
    while (bar && !["fixed", "sticky"].includes(getComputedStyle(bar).position)) bar = bar.parentElement;
    return bar && !bar.contains(here) ? bar.getBoundingClientRect().bottom : edge;
  }

  // edge: where what is in view begins, below the upper edge of the window.
  function follow(edge) {
    const above = edge - (frame?.getBoundingClientRect().top ?? 0);
    const { top, width: room } = element.getBoundingClientRect(); // it sticks by itself, but for in a frame
    const ends = element.parentElement.getBoundingClientRect().bottom - above;
    strip.hidden = room < NARROW || map.element.getBoundingClientRect().bottom > above || ends < 2 * height;
    if (strip.hidden) return;
    const scale = Math.min(1, room / width);
    style(box, `height:${height * scale}px`);
    inner.style.transform = `scale(${scale})`;
    style(strip, `transform:translateY(${above - top}px)`);
    show();
  }

  function show() {
    const faces = map.faces();
    if (painted !== faces) {
      painted = faces;
      for (const { path, size, colour } of faces) {
        const [x, y] = middle(path);
        const side = SPOT - 2 * AROUND;
        pictures.put([x - side / 2, y - side / 2, side, side], size, colour);
      }
    }
    const { column, row } = places.get(now.path);
    style(mark, `left:${column * SPOT + 1}px;top:${row * SPOT + 1}px;width:${SPOT - 2}px;height:${SPOT - 2}px`);
    write(words, now.words);
  }

  // path: the layer looked at; words: what is said of it.
  function draw(next) {
    now = next;
    if (!strip.hidden) show();
  }
  return { element, draw };
}
