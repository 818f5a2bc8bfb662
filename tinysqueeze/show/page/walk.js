// The button that goes through all stops of a step, one after another, until it is pressed again.

import { button } from "./dom.js";

const A_STOP = 1200; // milliseconds

export function walkButton(explorer) {
  let walking = null;
  const last = () => explorer.view.stop === explorer.stops.length - 1;
  const walk = button("▶ walk", () => (walking ? stop() : start()), { className: "ts-walk", title: "Go through all stops" });
  function stop() {
    clearInterval(walking);
    walking = null;
    walk.textContent = "▶ walk";
  }
  function start() {
    walk.textContent = "⏸ pause";
    if (last()) explorer.set({ stop: 0 });
    walking = setInterval(() => {
      explorer.set({ stop: explorer.view.stop + 1 });
      if (last()) stop();
    }, A_STOP);
  }
  return { element: walk, stop };
}
