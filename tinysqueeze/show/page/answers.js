// What the network says of the photograph: its best classes as bars, and where it sees the one chosen.

import { clamp, h } from "./dom.js";
import { percent } from "./numbers.js";

const BEST = 5;
const FLAT = 0.35; // how much contrast is left where a class is not seen

// The maps whose means are the logits (Zhou et al. 2016): the last node is a mean over all places.
export function classMaps({ nodes, output, shapes }) {
  const last = nodes.find((node) => node.target === output);
  const writers = nodes.filter((node) => node.target === output);
  const source = last.sources[0];
  return writers.length === 1 && last.kind === "mean" && shapes[source].length === 3 ? source : null;
}

// Probabilities of all classes.
export function softmaxOf(logits) {
  const most = Math.max(...logits);
  const powers = Float64Array.from(logits, (z) => Math.exp(z - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((p) => p / sum);
}

// The numbers of the best classes, the best first; of equals the first.
export function best(logits, count = BEST) {
  return [...logits.keys()].sort((a, b) => logits[b] - logits[a] || a - b).slice(0, count);
}

export function answers(header) {
  const source = classMaps(header);
  const className = (k) => header.classes[k] || `class ${k}`;
  const photo = h("canvas", {});
  const cover = h("canvas", { className: "ts-cover" });
  const frame = h("div", { className: "ts-seen", role: "img" }, photo, cover);
  const line = h("p", { className: "ts-line" });
  const box = h("input", { type: "checkbox", checked: true, id: "ts-where", onchange: () => redraw() });
  const where = h("label", { for: "ts-where" }, box, " show where the network sees the class");
  const list = h("ol", { className: "ts-best" });
  const element = h("section", { className: "ts-pair", "aria-label": "What the network says", hidden: true },
    h("figure", { className: "ts-figure ts-look" }, frame, line, source === null ? null : where), h("div", {}, h("h2", {}, "the five best classes"), list));
  let shown = null;
  let chosen = 0; // of the five

  function draw(now) {
    element.hidden = false;
    if (now.logits !== shown?.logits) chosen = 0;
    shown = now;
    redraw();
  }

  function redraw() {
    const { logits, seen } = shown;
    const chances = softmaxOf(logits);
    const five = best(logits);
    const rows = five.map((k, i) => {
      const bar = h("span", { className: "ts-chance" });
      bar.style.width = `${100 * chances[k]}%`;
      const choose = () => {
        chosen = i;
        redraw();
        list.children[i].firstChild.focus();
      };
      return h("li", {}, h("button", { type: "button", "aria-pressed": String(i === chosen), onclick: choose, title: `score ${logits[k].toFixed(2)}` },
        bar, h("span", {}, className(k)), h("b", {}, percent(chances[k], 1))));
    });
    list.replaceChildren(...rows);
    Object.assign(photo, { width: seen.width, height: seen.height });
    photo.getContext("2d").putImageData(new ImageData(seen.data, seen.width, seen.height), 0, 0);
    const name = className(five[chosen]);
    const lit = source !== null && box.checked;
    cover.hidden = !lit;
    if (lit) paintWhere(five);
    const score = `${name}: score ${logits[five[chosen]].toFixed(2)}, ${percent(chances[five[chosen]], 1)}`;
    line.textContent = lit ? `${score}. In colour: where the network sees it; the greyer, the less (its class activation map, whose mean is the score).` : `${score}. What the network sees, ${seen.width}×${seen.height} pixels.`;
    frame.setAttribute("aria-label", `The photograph as the network sees it. ${line.textContent}`);
  }

  // The photograph in flat grey, the more opaque the less the chosen class is seen there; the five share one scale.
  function paintWhere(five) {
    const [height, width, classes] = header.shapes[source];
    const data = shown.map(source);
    const at = (p, k) => Math.max(data[p * classes + k], 0);
    let most = 1e-12;
    for (let p = 0; p < height * width; p++) for (const k of five) most = Math.max(most, at(p, k));
    const veil = new ImageData(width + 2, height + 2); // the border goes on as far as the photograph
    for (let i = 0; i < height + 2; i++) {
      for (let j = 0; j < width + 2; j++) {
        const inside = clamp(i - 1, 0, height - 1) * width + clamp(j - 1, 0, width - 1);
        veil.data[4 * (i * (width + 2) + j) + 3] = Math.round(255 * (1 - Math.sqrt(at(inside, five[chosen]) / most)));
      }
    }
    const [top, left, high, wide] = header.places[source];
    const [rows, columns] = [high / height, wide / width];
    Object.assign(cover, { width: shown.seen.width, height: shown.seen.height });
    const pen = cover.getContext("2d");
    pen.drawImage(canvasOf(veil), left - columns, top - rows, wide + 2 * columns, high + 2 * rows);
    pen.globalCompositeOperation = "source-in";
    pen.drawImage(canvasOf(flat(shown.seen)), 0, 0);
  }

  return { element, draw };
}

// A photograph in greys near the middle one: on one of any colour it is told from the parts that are left.
function flat({ data, width, height }) {
  const grey = new ImageData(width, height);
  for (let i = 0; i < data.length; i += 4) {
    const light = 0.299 * data[i] + 0.587 * data[i + 1] + 0.114 * data[i + 2];
    grey.data.fill(128 + (light - 128) * FLAT, i, i + 3);
    grey.data[i + 3] = 255;
  }
  return grey;
}

function canvasOf(image) {
  const canvas = h("canvas", { width: image.width, height: image.height });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}
