// The explorer in its place on a page: opened for a state, anew for the next one, and put away with all it holds.

import { themeOf } from "./colours.js";
import { h } from "./dom.js";
import { Explorer } from "./explorer.js";
import { unpack } from "./state.js";
import { unhurried } from "./slices.js";
import { Step } from "./step.js";

// What anywidget and the page call: draws model's "state" into el; where a saved notebook did not keep so much, the
// HTML "instead". Returns what frees listeners, timers and observers when the view goes; it stops a step that is
// still being computed, too.
export function render({ model, el }) {
  const root = h("div", { className: "ts-explorer" });
  el.append(root);
  let life = new AbortController();
  const open = async () => {
    life.abort(); // what stood here before
    const { signal } = (life = new AbortController());
    root.dataset.theme = themeOf(el);
    if (!model.get("state")) {
      root.innerHTML = model.get("instead");
      return;
    }
    const line = h("p", { className: "ts-line", role: "status" }, "computing the step …");
    root.replaceChildren(line);
    try {
      const state = await unpack(model.get("state"));
      const say = (words) => { line.textContent = `computing the step: ${words}`; };
      const step = await unhurried(new Step(state).whole(), say, () => !signal.aborted);
      if (!signal.aborted) root.explorer = new Explorer(root, state, step, signal); // for the console, and for tests
    } catch (error) {
      if (signal.aborted) return;
      root.replaceChildren(h("p", { role: "alert" }, `The step can't be shown: ${error.message}`));
      throw error;
    }
  };
  model.on("change:state", open);
  open();
  return () => {
    model.off("change:state", open);
    life.abort();
  };
}
