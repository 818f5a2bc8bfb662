// Starts the explorer in a page of its own, from the state that stands in it.

import { Model } from "./model.js";
import { render } from "./explorer.js";
import { bytesOf } from "./state.js";

const model = new Model({ state: bytesOf(document.getElementById("state").textContent) });
render({ model, el: document.getElementById("explorer") });
