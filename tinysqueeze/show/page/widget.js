// The explorer as a notebook's widget, by the contract of anywidget.

import { keeping } from "./saved.js";
import { render } from "./view.js";

export default { render: keeping(render) };
