// The explorer as a notebook's widget, by the contract of anywidget.

import { render } from "./view.js";

export default { render };
