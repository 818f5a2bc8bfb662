// The images with what the network says of each, before and after the step; one's own picture; one more step.

import { addressField } from "./address.js";
import { button, h } from "./dom.js";
import { paintImage } from "./network_map.js";
import { percent } from "./numbers.js";
import { bitmapOf } from "./picture.js";
import { index } from "./terms.js";

// The colour of an image's pixel as people see it: (i, j) -> [r, g, b].
export function imageColour(state, n) {
  const [height, width, channels] = state.shapes[0];
  const size = [height, width, channels];
  const order = state.channels === "BGR" ? [2, 1, 0] : [0, 1, 2];
  let [low, high] = [0, 1];
  if (!state.mean.length) {
    const start = index(size, n, 0, 0, 0);
    const own = state.images.subarray(start, start + height * width * channels);
    [low, high] = own.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
  }
  return (i, j) => order.map((_, k) => {
    const c = Math.min(order[k], channels - 1);
    const value = state.images[index(size, n, i, j, c)];
    const seen = state.mean.length ? value * state.std[c] + state.mean[c] : (value - low) / (high - low || 1);
    return 255 * Math.max(0, Math.min(1, seen));
  });
}

// A picture, by its file or its address, as the network wants it: its centre, shrunk, minus mean, over std.
async function pixelsOf(source, state) {
  const [height, width, channels] = state.shapes[0];
  const picture = await bitmapOf(source);
  const share = Math.min(picture.width / width, picture.height / height);
  const [w, h0] = [width * share, height * share];
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, (picture.width - w) / 2, (picture.height - h0) / 2, w, h0, 0, 0, width, height);
  const bytes = context.getImageData(0, 0, width, height).data;
  const order = state.channels === "BGR" ? [2, 1, 0] : [0, 1, 2];
  return Float32Array.from({ length: height * width * channels }, (_, at) => {
    const c = at % channels;
    return (bytes[Math.floor(at / channels) * 4 + order[c]] / 255 - state.mean[c]) / state.std[c];
  });
}

// "98.21 % → 98.67 %": digits enough to see the difference, if there is one.
function apart(before, after) {
  const words = [before, after].map((p) => percent(p));
  return (words[0] === words[1] ? [before, after].map((p) => `${(100 * p).toFixed(2)}\u00a0%`) : words).join(" → ");
}

// actions: {choose(n), step(rate), rate(rate), reset(), own(pixels, n), label(label)}
export function imagesView(state, actions) {
  const list = h("div", { className: "ts-images", role: "group", "aria-label": "Images: choose one" });
  const cards = state.labels.map((_, n) => {
    const canvas = h("canvas", { role: "img" });
    const words = h("span", { className: "ts-words" });
    const card = h("button", { type: "button", className: "ts-card", onclick: () => actions.choose(n) }, canvas, words);
    list.append(card);
    return { card, canvas, words };
  });
  const rate = h("input", { type: "number", min: "0", max: "10", step: "any", required: true, value: String(state.rate), id: "ts-rate" });
  rate.addEventListener("change", () => rate.reportValidity() && actions.rate(rate.valueAsNumber));
  const more = button("one more step", () => rate.reportValidity() && actions.step(rate.valueAsNumber), { className: "ts-step" });
  const back = button("back to the first", () => { own.forget?.(); actions.reset(); }, { className: "ts-reset", title: "The first images, labels and parameters" });
  const history = h("p", { className: "ts-line ts-history", role: "status" });
  const controls = h("div", { className: "ts-row" }, more, h("label", {}, "learning rate ", rate), back);
  const trouble = h("p", { className: "ts-line", role: "alert" });
  const own = h("div", { className: "ts-row ts-own" });
  if (state.mean.length) {
    const names = h("select", {}, ...Array.from({ length: state.classes.length }, (_, k) => h("option", { value: String(k) }, state.className(k))));
    const file = h("input", { type: "file", accept: "image/*", onclick: () => { file.value = ""; } });
    names.addEventListener("change", () => actions.label(Number(names.value)));
    const take = async (source) => {
      const [mine, n] = [(own.wish = {}), drawn[2]];
      let failed = "";
      trouble.textContent = typeof source === "string" ? "loading the picture …" : "";
      const pixels = await pixelsOf(source, state).catch((error) => { failed = `${error.message}.`; });
      if (mine !== own.wish) return; // something else was wished for meanwhile
      trouble.textContent = failed;
      if (pixels) actions.own(pixels, n);
    };
    const address = addressField((where) => { file.value = ""; take(where); }, (words) => { trouble.textContent = words; });
    file.addEventListener("change", () => {
      address.clear();
      if (file.files[0]) take(file.files[0]);
    });
    own.append(h("label", {}, "your own picture instead ", file), address.element);
    if (state.classes.length) own.append(h("label", {}, "its right class ", names));
    own.update = (label, blocked) => {
      names.value = String(label);
      names.disabled = file.disabled = blocked;
      address.block(blocked);
    };
    own.forget = () => {
      own.wish = null;
      trouble.textContent = "";
      file.value = "";
      address.clear();
    };
  }
  const element = h("section", { className: "ts-people", "aria-label": "Images and predictions" }, list, h("div", {}, controls, history, own, trouble));
  let drawn = [];

  function draw({ step, after, view, losses, blocked, first }) {
    const now = [step, after, view.n, losses.length];
    if (now.every((value, i) => value === drawn[i])) return;
    drawn = now;
    cards.forEach(({ card, canvas, words }, n) => {
      const name = state.className(state.labels[n]);
      paintImage(canvas, state.shapes[0], imageColour(state, n));
      canvas.setAttribute("aria-label", `image ${n + 1}: ${name}`);
      card.setAttribute("aria-pressed", String(n === view.n));
      const best = (chances) => chances.indexOf(Math.max(...chances));
      const say = (s) => (Number.isFinite(s.chances[n][0]) ? `${state.className(best(s.chances[n]))} ${percent(s.chances[n][best(s.chances[n])])}` : "what is no number");
      const right = (s) => s.chances[n][state.labels[n]];
      const known = [step, after ?? step].every((s) => Number.isFinite(right(s)));
      const chance = Number.isFinite(right(step)) ? percent(right(step)) : "no number";
      words.replaceChildren(
        h("b", {}, name), h("br"), `says ${say(step)}`, h("br"),
        `right class: ${after && known ? `${apart(right(step), right(after))} after the step` : chance}`,
      );
    });
    const advice = Number.isFinite(step.loss) ? "" : ": the step was too long; go back to the first and take a smaller learning rate";
    history.textContent = `loss ${losses.map((l) => l.toFixed(4)).join(" → ")}${after ? `; the next step makes it ${after.loss.toFixed(4)}` : ""}${advice}`;
    more.disabled = Boolean(blocked);
    more.title = blocked ?? "";
    if (blocked) trouble.textContent = blocked;
    back.hidden = !first.left(step);
    own.update?.(state.labels[view.n], Boolean(blocked));
  }
  return { element, draw };
}
