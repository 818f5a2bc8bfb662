// The explorer of a training step: everything on the page, and what the learner looks at now.

import { backwardView } from "./backward_view.js";
import { onTheme, themeOf } from "./colours.js";
import { by, clamp, h, plural, write } from "./dom.js";
import { firstOf, withImage } from "./first.js";
import { forwardView, isConv } from "./forward_view.js";
import { imageColour, imagesView } from "./images_view.js";
import { lossView } from "./loss_view.js";
import { legend } from "./maps.js";
import { miniMap } from "./mini_map.js";
import { networkMap } from "./network_map.js";
import { madeOf } from "./norm_terms.js";
import { exact, short, thousands } from "./numbers.js";
import { overview } from "./overview.js";
import { placeControls } from "./place.js";
import { Queue, unhurried } from "./slices.js";
import { Step } from "./step.js";
import { stopBar } from "./stop_bar.js";
import { sumPanel } from "./sum.js";
import { explain, index, weightName } from "./terms.js";

const AHEAD = 2e8; // multiply-adds up to which the next step is computed before it is asked for

// signal: aborted when the page or the notebook is done with it.
export class Explorer {
  constructor(root, state, step, signal) {
    Object.assign(this, { root, state, signal, queue: new Queue(), first: firstOf(state) });
    this.theme = root.dataset.theme;
    this.nodes = new Map(state.nodes.map((node) => [node.path, node]));
    const paths = [...this.nodes.keys()];
    this.stops = [...paths.map((path) => [path, "→"]), ["loss", ""], ...paths.toReversed().map((path) => [path, "←"])];
    this.view = { stop: 0, n: 0, at: [0, 0], from: [0, 0], out: 0, inp: 0, tap: 0, term: 0, what: "dx" };
    this.blocked = Object.keys(state.y).length ? "One more step, or another image, needs Python here: some layers are computed there." : null;
    const set = (changes) => this.set(changes);
    this.map = networkMap(state, (path) => this.goTo(path));
    this.mini = miniMap(state, this.map, (path) => this.goTo(path), signal);
    this.all = overview(state, (path, channel) => (path === null ? this.goTo(state.nodes[0].path, { inp: channel }) : this.goTo(path, { out: channel })));
    this.images = imagesView(state, {
      choose: (n) => this.set({ n }),
      step: (rate) => this.more(rate),
      rate: (rate) => { this.rate = rate; this.#lookAhead(); this.draw(); },
      reset: () => this.restart(),
      own: (pixels, n) => this.swap({ images: withImage(state.images, pixels, n) }),
      label: (label) => this.swap({ labels: state.labels.with(this.view.n, label) }),
    });
    Object.assign(this, { forward: forwardView(set), backward: backwardView(set), loss: lossView() });
    this.sum = sumPanel((lit) => { this.lit = lit; this.set(lit ? { term: lit - 1 } : {}, true); });
    this.working = h("p", { className: "ts-line", role: "status", hidden: true });
    this.update = h("p", { className: "ts-line ts-update" });
    this.place = placeControls(this);
    this.bar = stopBar(this);
    Object.assign(this, { walk: this.bar.walk, slide: this.place.slide });
    root.replaceChildren(...this.#frame());
    onTheme(() => {
      this.theme = root.dataset.theme = themeOf(root.parentElement);
      this.draw();
    }, signal);
    for (const one of [this.sum, this.walk, this.slide]) signal.addEventListener("abort", one.stop);
    this.#take(step, []);
    const middle = state.nodes[0].out.slice(0, 2).map((side) => Math.floor(side / 2));
    this.set({ at: middle, from: middle });
    this.#rehearse();
    this.set({ at: middle, from: middle });
    this.settle();
  }

  // Draws one layer of each kind before the page is seen: code that has run is compiled, and a first choice quick.
  #rehearse() {
    const kindOf = ({ kind, kernel } = {}) => `${kind} ${kernel}`;
    const kinds = new Map(this.stops.map(([path, direction], stop) => [kindOf(this.nodes.get(path)) + direction, stop]));
    for (const stop of kinds.values()) {
      this.set({ stop });
      this.settle();
    }
    this.set({ stop: 0, out: 0, inp: 0, tap: 0, term: 0 });
  }

  // From the first images, labels and parameters.
  restart() {
    this.first.bringBack();
    return this.queue.instead(() => this.#compute(new Step(this.state).whole(), []));
  }

  // One step of plain gradient descent, after those that were asked for before.
  more(rate) {
    if (!Number.isFinite(rate)) return null;
    this.rate = rate;
    const work = function* (step) {
      return yield* (yield* step.next(rate)).backward();
    };
    return this.queue.after(() => this.#compute(work(this.step), this.losses.slice(-5)));
  }

  // Other images or labels, with the parameters of now.
  swap(changes) {
    Object.assign(this.state, changes);
    return this.queue.instead(() => this.#compute(new Step(this.state, this.step.params).whole(), []));
  }

  // Look at the step that `work` returns, unless another was wished for meanwhile.
  async #compute(work, losses) {
    this.slide.stop();
    const mine = this.computing = {};
    const say = (words) => {
      this.working.hidden = false;
      this.working.textContent = `computing: ${words}`;
    };
    const step = await unhurried(work, say, () => this.computing === mine && !this.signal.aborted);
    if (!step) return;
    this.working.hidden = true;
    this.computing = null;
    this.#take(step, losses);
    this.draw();
  }

  #take(step, losses) {
    Object.assign(this, { step, losses: [...losses, step.loss] });
    this.#lookAhead();
  }

  // The next step's predictions, when there is a moment.
  async #lookAhead() {
    this.after = null;
    const work = Object.values(this.state.counts).reduce((sum, one) => sum + one.multiply_adds, 0) * this.state.labels.length;
    if (this.blocked || work > AHEAD) return;
    const { step } = this;
    const now = () => step === this.step && !this.computing && !this.signal.aborted;
    await new Promise((go) => setTimeout(go, 50));
    const after = now() && await unhurried(step.next(this.rate ?? this.state.rate), () => {}, now);
    if (!after || !now()) return;
    this.after = after;
    this.draw();
  }

  goTo(path, changes = {}) {
    const direction = this.stops[this.view.stop][1] || "→";
    const stop = this.stops.findIndex(([own, way]) => own === path && (path === "loss" || way === direction));
    if (stop < 0) throw new Error(`no layer is called ${path}`);
    this.set({ ...changes, stop });
  }

  // changes: values, or functions of the view. playing: the animation itself asks.
  set(changes, playing = false) {
    this.slide.elsewhere();
    if ("stop" in changes && changes.stop !== this.view.stop) { Object.assign(this.view, { what: "dx", term: 0 }); this.walk.elsewhere(); }
    for (const [name, value] of Object.entries(changes)) this.view[name] = typeof value === "function" ? value(this.view) : value;
    if (!playing) { this.lit = null; this.sum.stop(); }
    this.view.stop = clamp(this.view.stop, 0, this.stops.length - 1);
    this.#keepInside(changes);
    this.draw();
  }

  // Cut the place looked at to the layer's shapes; let term, tap and channel follow one another.
  #keepInside(changes) {
    const { view } = this;
    const [path, direction] = this.stops[view.stop];
    const node = this.nodes.get(path);
    this.node = node;
    if (!node) return;
    const { x, y } = this.step.seen.get(path);
    this.#sameSpot(path, direction);
    const cut = ([row, column], size) => [clamp(row, 0, size[0] - 1), clamp(column, 0, size[1] - 1)];
    const conv = isConv(node);
    view.out = clamp(view.out, 0, y.size[2] - 1);
    this.part = conv ? x.size[2] / node.groups : x.size[2];
    this.own = conv ? y.size[2] / node.groups : 1;
    this.group = conv ? Math.floor(view.out / this.own) : 0;
    this.what = direction === "→" ? "y" : view.what;
    const most = conv && this.what !== "dx" ? this.part : x.size[2];
    view.inp = clamp(view.inp, 0, most - 1);
    if (!conv && node.kind !== "flatten") {
      const chosen = ["out", "inp"].find((name) => name in changes) ?? (this.what === "dx" ? "inp" : "out");
      const same = view[chosen];
      view.out = view.inp = clamp(same, 0, y.size[2] - 1);
    }
    view.at = cut(view.at, this.what === "dx" ? x.size : y.size);
    view.from = cut(view.from, y.size);
    view.tap = clamp(view.tap, 0, conv ? node.kernel[0] * node.kernel[1] - 1 : 0);
    this.origin = node.kind === "flatten" ? [Math.floor(view.out / (x.size[1] * x.size[2])), Math.floor(view.out / x.size[2]) % x.size[1], view.out % x.size[2]] : null;
    this.flat = node.kind === "flatten" ? (view.at[0] * x.size[1] + view.at[1]) * x.size[2] + view.inp : 0;
    this.#explain();
    view.term = clamp(view.term, 0, Math.max(this.found.terms.length - 1, 0));
    if (!conv || this.what !== "y") return;
    if ("term" in changes) ({ tap: view.tap, channel: view.inp } = this.found.terms[view.term]);
    else view.term = Math.max(this.found.terms.findIndex((t) => t.tap === view.tap && t.channel === view.inp), 0);
    this.patchRow = (view.n * y.size[0] + view.at[0]) * y.size[1] + view.at[1];
  }

  // In a map of another size, look at the same spot of the image.
  #sameSpot(path, direction) {
    const { x, y } = this.step.seen.get(path);
    const sizes = { at: (direction === "→" ? y : x).size, from: y.size };
    for (const [name, size] of Object.entries(sizes)) {
      const old = this.sizes?.[name] ?? size;
      const spot = (k) => Math.floor(((this.view[name][k] + 0.5) * size[k]) / old[k]);
      if ([0, 1].some((k) => old[k] !== size[k] && size[k] > 1)) this.view[name] = [spot(0), spot(1)];
      this.sizes = { ...this.sizes, [name]: [0, 1].map((k) => (size[k] > 1 ? size[k] : old[k])) };
    }
  }

  // The number in question, once for all views; the same object as long as it is the same number.
  #explain() {
    const { view, node, what, step } = this;
    const at = { y: [...view.at, view.out], dx: [...view.at, view.inp], dweight: [view.tap, view.inp, view.out], dbias: [view.out] }[what];
    const key = [node.path, what, view.n, ...at].join();
    if (this.foundKey === key && this.foundStep === step) return;
    Object.assign(this, { foundKey: key, foundStep: step, found: explain(step, node, what, view.n, at) });
  }

  // The array's own number that `found` explains.
  held() {
    const { view, node, what } = this;
    const { x, y, dx, grads } = this.step.seen.get(node.path);
    if (what === "y") return y.data[index(y.size, view.n, ...view.at, view.out)];
    if (what === "dx") return dx[index(x.size, view.n, ...view.at, view.inp)];
    if (what === "dbias") return grads.bias[view.out];
    return grads.weight[isConv(node) ? (view.tap * this.part + view.inp) * node.out[2] + view.out : view.out];
  }

  draw() {
    const { view, step, state, theme, node } = this;
    const [path, direction] = this.stops[view.stop];
    if (node) this.#explain();
    const ui = { ...this, record: step.seen.get(path), lit: this.lit ?? null };
    this.map.draw({ step, path, backward: direction === "←", n: view.n, theme, imageColour: imageColour(state, view.n) });
    this.all.draw({ step, node, channel: view.out, n: view.n, backward: direction === "←", theme });
    this.images.draw(ui);
    const words = this.#headline(path, direction, node);
    write(this.headline, words);
    this.mini.draw({ path, words });
    this.bar.draw(view.stop);
    this.forward.element.hidden = direction !== "→";
    this.backward.element.hidden = direction !== "←";
    this.loss.element.hidden = path !== "loss";
    this.sum.element.hidden = this.place.element.hidden = this.update.hidden = path === "loss";
    if (path === "loss") {
      this.rest = this.drawn = null;
      this.loss.draw(ui);
      return;
    }
    const side = direction === "→" ? this.forward : this.backward;
    side.draw(ui);
    this.update.hidden = !["dweight", "dbias"].includes(this.what);
    const other = this.drawn !== this.view.stop; // of another layer the maps come first
    this.drawn = this.view.stop;
    if (!other) side.numbers(ui);
    this.#later(() => {
      if (other) side.numbers(ui);
      side.rest(ui);
      this.place.draw(ui);
      this.sum.draw(this.found, this.held(), madeOf(step, node, this.what, view.out));
      if (!this.update.hidden) write(this.update, this.#updateText(node));
    });
  }

  // What stands further down is drawn a frame later: the maps and the window answer a hand at once.
  #later(work) {
    if (!this.rest) requestAnimationFrame(() => setTimeout(() => this.settle()));
    this.rest = work;
  }

  // Everything drawn, now.
  settle() {
    this.rest?.();
    this.rest = null;
  }

  #headline(path, direction, node) {
    const count = `${this.view.stop + 1} of ${this.stops.length}`;
    if (!node) return `${count} · the loss: ${this.step.loss.toFixed(4)} = ln ${short(Math.exp(this.step.loss))}`;
    const { x, y } = this.step.seen.get(path);
    const cost = this.state.counts[path];
    const size = (name, map) => by(node.flat[name] ? map.size.slice(2) : map.size);
    const words = cost?.parameters ? ` · ${plural(cost.parameters, "parameter")}, ${thousands(cost.multiply_adds)} multiply-adds` : "";
    return `${count} · ${direction} ${path} · ${node.what} · x ${size("x", x)} ${direction} y ${size("y", y)}${words}`;
  }

  #updateText(node) {
    const { view, what, found } = this;
    const rate = this.rate ?? this.state.rate;
    const { params } = this.step.seen.get(node.path);
    const [name, old] = what === "dbias" ? [`bias[${view.out}]`, params.bias[view.out]]
      : isConv(node) ? [weightName(node, view.tap, view.inp, view.out), params.weight[(view.tap * this.part + view.inp) * node.out[2] + view.out]]
        : [`weight[${view.out}]`, params.weight[view.out]];
    return `The update: ${name} is ${exact(old)}; ${exact(old)} − ${rate}·${found.value < 0 ? `(${short(found.value)})` : short(found.value)} = ${exact(Math.fround(old - rate * this.held()))} after the step (learning rate ${rate}).`;
  }

  #frame() {
    const { state } = this;
    const sums = (column) => Object.values(state.counts).reduce((sum, one) => sum + one[column], 0);
    this.headline = h("h3", { className: "ts-headline", role: "status" });
    return [
      h("header", {}, h("h2", {}, `A training step of ${state.name}`),
        h("p", { className: "ts-line" }, `${plural(sums("parameters"), "parameter")}, ${thousands(sums("multiply_adds"))} multiply-adds an image. ${state.about}`)),
      this.images.element, this.working, this.map.element, this.mini.element, this.all.element, legend(), this.bar.element, this.headline, this.place.element,
      this.forward.element, this.backward.element, this.loss.element, this.sum.element, this.update,
    ];
  }
}
