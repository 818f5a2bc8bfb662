// A panel of sliders as a notebook's widget, by the contract of anywidget.

import { keeping } from "./saved.js";
import { render } from "./sliders.js";

export default { render: keeping(render) };
