// Starts the photo page from the state that stands in it.

import { Model } from "./model.js";
import { renderPhoto } from "./photo.js";
import { bytesOf } from "./state.js";

const model = new Model({ state: bytesOf(document.getElementById("state").textContent) });
renderPhoto({ model, el: document.querySelector("main") });
