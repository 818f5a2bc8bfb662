// The bar that goes from stop to stop: next, back, the ends, the loss, a walk through all, a list of them.

import { button, h } from "./dom.js";
import { walkButton } from "./walk.js";

export function stopBar(explorer) {
  const { stops } = explorer;
  const walk = walkButton(explorer);
  const go = (label, name, to) => button(label, () => explorer.set({ stop: to(explorer.view.stop) }), { "aria-label": name, title: name });
  const loss = stops.findIndex(([path]) => path === "loss");
  const list = h("select", { "aria-label": "Go to a stop", onchange: () => explorer.set({ stop: list.selectedIndex }) },
    ...stops.map(([path, direction], i) => h("option", {}, `${i + 1} ${direction} ${path}`)));
  const element = h("div", { className: "ts-row ts-bar-top", role: "toolbar", "aria-label": "Walk through the step" },
    go("first", "the first layer", () => 0), go("back", "back", (here) => here - 1), go("next", "next", (here) => here + 1),
    go("to the loss", "to the loss", () => loss), go("last", "the last stop", () => stops.length - 1), walk.element, list);
  function draw(stop) {
    if (list.selectedIndex !== stop) list.selectedIndex = stop;
  }
  return { element, walk, draw };
}
