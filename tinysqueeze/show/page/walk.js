// The button that goes through all stops of a step, one after another, until it is pressed again.

import { button } from "./dom.js";

const A_STOP = 1200; // milliseconds

export function walkButton(explorer) {
  let walking = null;
  let moving = false; // by the walk itself
  const last = () => explorer.view.stop === explorer.stops.length - 1;
  const walk = button("walk", () => (walking ? stop() : start()), { className: "ts-walk", title: "Go through all stops" });
  function stop() {
    clearInterval(walking);
    walking = null;
    walk.textContent = "walk";
  }
  function start() {
    if (last()) explorer.set({ stop: 0 });
    walk.textContent = "pause";
    walking = setInterval(() => {
      moving = true;
      explorer.set({ stop: explorer.view.stop + 1 });
      moving = false;
      if (last()) stop();
    }, A_STOP);
  }
  // Another stop was chosen: by hand, the walk ends.
  const elsewhere = () => moving || stop();
  return { element: walk, stop, elsewhere };
}
