// Starts the explorer in a page of its own, or in a frame of another, from the state that stands in it.

import { Model } from "./model.js";
import { render } from "./explorer.js";
import { bytesOf } from "./state.js";

const model = new Model({ state: bytesOf(document.getElementById("state").textContent) });
render({ model, el: document.getElementById("explorer") });

// In a frame, as below a notebook's cell: as high as what it shows, on the ground that it has there.
const frame = window.frameElement; // null where there is none, or where it is none of our business
if (frame) {
  const fit = () => {
    const root = document.querySelector(".ts-explorer");
    document.body.style.background = getComputedStyle(root).backgroundColor;
    frame.style.height = `${Math.ceil(root.getBoundingClientRect().height) + 12}px`;
  };
  document.getElementById("explorer").style.padding = "0";
  new ResizeObserver(fit).observe(document.querySelector(".ts-explorer"));
}
