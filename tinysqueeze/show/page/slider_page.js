// Starts a panel of sliders in a page of its own, or in a frame of another, from the state that stands in it.

import { fitFrame } from "./frame.js";
import { Model } from "./model.js";
import { render } from "./sliders.js";

const el = document.getElementById("explorer");
const free = render({ model: new Model(JSON.parse(document.getElementById("state").textContent)), el });
fitFrame(el, free);
