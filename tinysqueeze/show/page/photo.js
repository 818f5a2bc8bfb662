// The photo page: a trained network on any photograph, its best classes, where it sees them, its maps.

import { addressField, addressName } from "./address.js";
import { onTheme, themeOf } from "./colours.js";
import { button, by, h, thousands } from "./dom.js";
import { Engine } from "./engine.js";
import { answers } from "./answers.js";
import { layerView } from "./layer_view.js";
import { photograph, pictureIn } from "./picture.js";
import { unpackPhoto } from "./photo_state.js";

const moment = () => new Promise((done) => setTimeout(done)); // so that the line before is seen

// Draws model's "state" into el.
export async function renderPhoto({ model, el }) {
  const line = h("p", { role: "status" }, "unpacking the network …");
  const root = h("div", { className: "ts-explorer ts-photo" }, line);
  el.append(root);
  root.dataset.theme = themeOf(el);
  try {
    if (typeof WebAssembly === "undefined") throw new Error("this browser has no WebAssembly");
    const { header, code, file, examples } = await unpackPhoto(model.get("state"));
    await moment();
    const engine = await Engine.open(code, header, file);
    root.photo = new Photo(root, header, engine, file, examples); // for the console, and for tests
    if (examples.length) await root.photo.show(examples[0].blob, examples[0].name);
  } catch (error) {
    root.replaceChildren(h("p", { role: "alert" }, `The network can't be shown: ${error.message}`));
    throw error;
  }
}

class Photo {
  constructor(root, header, engine, file, examples) {
    this.engine = engine;
    this.header = header;
    this.theme = root.dataset.theme;
    this.answers = answers(header);
    this.layers = layerView(header);
    this.status = h("p", { className: "ts-line", role: "status" }, "No photograph yet.");
    this.trouble = h("p", { className: "ts-trouble", role: "alert" });
    root.replaceChildren(
      h("h1", {}, `${header.name} on your photograph`),
      h("p", {}, this.#story(file.length)),
      this.#chooser(examples), this.status, this.trouble, this.answers.element, this.layers.element,
      h("details", {}, h("summary", {}, "about these weights"), ...[...header.about, `images: ${header.images}`].map((text) => h("p", { className: "ts-line" }, text))),
    );
    onTheme(() => {
      this.theme = root.dataset.theme = themeOf(root.parentElement);
      this.#draw();
    });
    this.#listen(root.ownerDocument, root);
  }

  #story(bytes) {
    const { parameters } = this.header;
    return `${thousands(parameters)} numbers, sent to you as ${thousands(bytes)} bytes, ${(4 * parameters / bytes).toFixed(1)} times smaller than as 32-bit numbers, `
      + `unpacked here in ${this.engine.unpacking.toFixed(0)} ms. The network runs in this page; your photograph stays with you.`;
  }

  #chooser(examples) {
    const file = h("input", { type: "file", accept: "image/*", onchange: () => file.files[0] && this.#open(file.files[0]) });
    file.addEventListener("click", () => { file.value = ""; }); // so that the same one may be chosen again
    this.zone = h("label", { className: "ts-drop" }, h("b", {}, "Drop a photograph here, paste one, or choose a file: "), file);
    const again = examples.map(({ name, blob }) => button(name, () => this.show(blob, name)));
    const address = addressField((where) => this.show(where, addressName(where)), (words) => { this.trouble.textContent = words; });
    return h("div", {}, this.zone, address.element, examples.length ? h("div", { className: "ts-row", role: "group", "aria-label": "Examples" }, "or look at ", ...again) : null);
  }

  #listen(page, root) {
    const hover = (on) => (event) => {
      event.preventDefault();
      this.zone.classList.toggle("ts-over", on);
    };
    page.addEventListener("dragover", hover(true));
    page.addEventListener("dragleave", hover(false));
    page.addEventListener("drop", (event) => {
      hover(false)(event);
      this.#open(pictureIn(event.dataTransfer));
    });
    page.addEventListener("paste", (event) => root.isConnected && pictureIn(event.clipboardData) && this.#open(pictureIn(event.clipboardData)));
  }

  #open(file) {
    if (file) return this.show(file, file.name || "the picture pasted");
    this.trouble.textContent = "That was no file: drop or choose a picture.";
    return null;
  }

  // A picture, its file or its address, through the network, and everything drawn. Of two in a hurry the later one stays.
  async show(source, name) {
    const turn = (this.turn = (this.turn ?? 0) + 1);
    this.trouble.textContent = "";
    this.status.textContent = `looking at ${name} …`;
    try {
      await moment();
      const pixels = await photograph(source);
      if (turn !== this.turn) return;
      this.#run(pixels, name);
    } catch (error) {
      if (turn !== this.turn) return;
      this.status.textContent = this.said ?? "No photograph yet.";
      this.trouble.textContent = error.message;
    }
  }

  #run(pixels, name) {
    const started = performance.now();
    this.engine.take(pixels);
    const ready = performance.now();
    this.logits = this.engine.forward();
    this.took = performance.now() - ready;
    this.said = `${name}, ${pixels.width}×${pixels.height} pixels: made ready in ${(ready - started).toFixed(0)} ms, ${by(this.header.shapes[0])} numbers through all layers in ${this.took.toFixed(0)} ms`;
    this.status.textContent = this.said;
    this.seen = this.engine.seen;
    this.cache = new Map();
    this.#draw();
  }

  #draw() {
    if (!this.seen) return;
    const map = (number) => {
      if (!this.cache.has(number)) this.cache.set(number, this.engine.map(number));
      return this.cache.get(number);
    };
    const shown = { logits: this.logits, seen: this.seen, map, times: this.engine.times, theme: this.theme };
    this.answers.draw(shown);
    this.layers.draw(shown);
  }
}
