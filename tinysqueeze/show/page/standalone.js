// Starts the explorer in a page of its own, or in a frame of another, from the state that stands in it.

import { fitFrame } from "./frame.js";
import { Model } from "./model.js";
import { render } from "./view.js";
import { bytesOf } from "./state.js";

const place = document.getElementById("explorer");
const free = render({ model: new Model({ state: bytesOf(document.getElementById("state").textContent) }), el: place });
fitFrame(place, free);
