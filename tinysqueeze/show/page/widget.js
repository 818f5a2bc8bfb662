// The explorer as a notebook's widget, by the contract of anywidget.

import { render } from "./explorer.js";

export default { render };
