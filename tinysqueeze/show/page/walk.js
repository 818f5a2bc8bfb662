// Buttons that go on by themselves: through all stops of a step, or with the window over a map.

import { button } from "./dom.js";

const A_STOP = 1200; // milliseconds
const A_PIXEL = 250;

// begin() makes ready for the first of many moves, last() says when there is none left. `elsewhere` ends it for
// whatever the learner wishes instead, and not for its own moves.
function playButton(label, title, className, pace, { begin, move, last }) {
  let timer = null;
  let moving = false;
  const element = button(label, () => (timer ? stop() : start()), { className, title });
  function stop() {
    if (!timer) return;
    clearInterval(timer);
    timer = null;
    element.textContent = label;
  }
  function start() {
    begin();
    element.textContent = "pause";
    timer = setInterval(() => {
      moving = true;
      move();
      moving = false;
      if (last()) stop();
    }, pace);
  }
  const elsewhere = () => moving || stop();
  return { element, stop, elsewhere };
}

export function walkButton(explorer) {
  const last = () => explorer.view.stop === explorer.stops.length - 1;
  return playButton("walk", "Go through all stops", "ts-walk", A_STOP, {
    begin: () => explorer.set(last() ? { stop: 0 } : {}),
    move: () => explorer.set({ stop: explorer.view.stop + 1 }),
    last,
  });
}

// The chosen pixel of y goes row by row from where it is, or from the first if it is the last: the window over x,
// the products and the sum follow.
export function slideButton(explorer) {
  const size = () => explorer.node.out;
  const place = () => explorer.view.at[0] * size()[1] + explorer.view.at[1];
  const go = (to) => explorer.set({ at: [Math.floor(to / size()[1]), to % size()[1]] });
  const last = () => place() === size()[0] * size()[1] - 1;
  return playButton("slide", "Slide the window over the map, pixel by pixel", "ts-slide", A_PIXEL, {
    begin: () => {
      explorer.walk.stop();
      go(last() ? 0 : place());
    },
    move: () => go(place() + 1),
    last,
  });
}
