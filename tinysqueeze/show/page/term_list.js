// Every term of a sum as a table: a screenful at once, the others in slices, however many thousands there are.

import { h } from "./dom.js";
import { exact } from "./numbers.js";
import { unhurried } from "./slices.js";
import { namesOf } from "./terms.js";

const PART = 250; // rows; a browser lays out only the parts in view, but all of them can be read, searched and scrolled to

export function termList() {
  const head = h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ...["", "what", "×", "product", "sum so far"].map((name) => h("th", { scope: "col", role: "columnheader" }, name))));
  const caption = h("caption", {}, "Every term");
  const table = h("table", { className: "ts-terms", role: "table", "aria-label": "Every term" }, caption, head);
  const element = h("div", { className: "ts-scroll", tabIndex: 0, role: "region", "aria-label": "Every term of the sum", hidden: true }, table);
  let filled = null;

  // found: what `explain` gives.
  function draw(found) {
    if (filled === found) return;
    filled = found;
    table.replaceChildren(caption, head);
    table.setAttribute("aria-rowcount", found.terms.length + 1 + Number(found.start !== null));
    element.scrollTop = 0;
    const wanted = () => filled === found && element.isConnected;
    const work = parts(found);
    work.next(); // at once
    setTimeout(() => wanted() && unhurried(work, () => {}, wanted));
  }

  // Puts part after part into the table, with a pause after each.
  function* parts(found) {
    const rows = rowsOf(found);
    for (;;) {
      const part = Array.from({ length: PART }, () => rows.next().value).filter(Boolean);
      if (!part.length) return;
      const body = h("tbody", { role: "rowgroup", innerHTML: part.join("") });
      body.style.setProperty("--rows", part.length);
      table.append(body);
      yield;
    }
  }
  return { element, draw };
}

function* rowsOf(found) {
  let [sum, number] = [found.start ?? 0, 1]; // the header's row is the first
  const row = (cells) => `<tr role="row" aria-rowindex="${++number}">${cells.map((cell) => `<td role="cell">${cell}</td>`).join("")}</tr>`;
  if (found.start !== null) yield row(["", "bias", "", exact(found.start), exact(sum)]);
  for (const [k, term] of found.terms.entries()) {
    const [left, right] = namesOf(found, term);
    sum += term.a * term.b;
    yield row([k + 1, `${left} = <b>${exact(term.a)}</b>`, `${right} = <b>${exact(term.b)}</b>`, exact(term.a * term.b), exact(sum)]);
  }
}
