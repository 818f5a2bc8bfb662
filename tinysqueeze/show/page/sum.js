// The formula of a number with its actual numbers, every term on demand, and the animation that adds them up.

import { attributes, button, h, plural, write } from "./dom.js";
import { exact, short } from "./numbers.js";
import { termList } from "./term_list.js";
import { total } from "./terms.js";

const SECONDS = 6; // that adding up all terms takes

// play(k): called with how many terms are lit, null for all of them.
export function sumPanel(play) {
  const rule = h("p", { className: "ts-rule" });
  const numbers = h("p", { className: "ts-numbers" });
  const check = h("p", { className: "ts-line" });
  const list = termList();
  const choices = h("div", { className: "ts-row ts-parts", role: "group", "aria-label": "Which sum" });
  const more = button("all terms", () => { open = !open; fill(); }, { className: "ts-more", "aria-expanded": "false" });
  const player = button("add up", () => (timer ? stop() : start()), { className: "ts-add" });
  const element = h("section", { className: "ts-sum", "aria-label": "The sum" }, choices, rule, numbers, check, h("div", { className: "ts-row" }, player, more), list.element);
  let found = { terms: [], start: null, value: 0 };
  let open = false;
  let timer = null;
  let lit = null;
  let part = 0; // of what is looked at: the number itself, or one that it is made of
  let last = [];

  function start() {
    const count = found.terms.length;
    const began = performance.now();
    const rest = lit === null || lit >= count ? 0 : lit;
    player.textContent = "pause";
    play(lit); // what else goes on by itself ends
    const tick = () => {
      const share = (performance.now() - began) / (Math.min(SECONDS, count * 0.35) * 1000);
      lit = Math.min(count, rest + Math.ceil(share * count));
      if (lit >= count) { lit = null; stop(); }
      play(lit);
    };
    timer = setInterval(tick, 100);
  }

  function stop() {
    if (!timer) return;
    clearInterval(timer);
    timer = null;
    player.textContent = "add up";
  }

  function fill() {
    attributes(more, { "aria-expanded": open });
    list.element.hidden = !open;
    write(more, open ? "hide the terms" : found.terms.length === 1 ? "the one term" : `all ${plural(found.terms.length, "term")}`);
    if (open) list.draw(found);
  }

  const onChoice = (one) => () => {
    part = one;
    draw(...last);
  };

  // Buttons for the number and those that it is made of.
  function offer(all) {
    choices.hidden = all.length < 2;
    if (choices.hidden) part = 0;
    while (choices.children.length > all.length) choices.lastChild.remove();
    while (choices.children.length < all.length) choices.append(button("", onChoice(choices.children.length)));
    all.forEach(({ name }, i) => {
      write(choices.children[i], name);
      attributes(choices.children[i], { "aria-pressed": i === part });
    });
  }

  // whole: what `explain` gives. own: the array's own number. made: numbers that it is made of, each with its `held`.
  function draw(whole, own, made) {
    last = [whole, own, made];
    offer([whole, ...made]);
    const now = [whole, ...made][part];
    const held = part ? now.held : own;
    if (now !== found) {
      stop();
      lit = null;
    }
    found = now;
    write(rule, now.rule);
    write(numbers, written(now, lit));
    write(check, `${now.note ? `${now.note}. ` : ""}${now.name} in the array: ${exact(held)}${verdict(now, held)}`);
    attributes(element, { "data-value": exact(now.value), "data-held": exact(held) });
    player.hidden = now.terms.length < 2;
    more.hidden = !now.terms.length;
    fill();
  }
  return { element, draw, stop, lit: () => lit };
}

// How the array's number stands to the printed sum.
function verdict(found, held) {
  const apart = Math.abs(found.value - held);
  if (!Number.isFinite(held)) return ", no number: a step was too long.";
  if (apart === 0) return ", the same float32.";
  const most = roundingOf(found);
  const words = `; the printed sum differs by ${short(found.value - held)}`;
  return apart <= most ? `${words}, its rounding (at most ${short(most)} with so many terms).`
    : `${words}. They do not agree: rounding makes at most ${short(most)}. This is a fault, of this page or of what computed the array; please report it.`;
}

const ROUNDED = 2 ** -24; // of a number, at most, when it becomes a float32,
const SMALLEST = 2 ** -149; // or this much, where it is very small

// How far a sum in float32, in any order, may be from the exact one: each of n terms is rounded once as a product
// and takes part in n - 1 additions at most (Higham, Accuracy and Stability of Numerical Algorithms, 4.2).
function roundingOf({ start, terms, over, roundings }) {
  const sizes = terms.reduce((sum, { a, b }) => sum + Math.abs(a * b), Math.abs(start ?? 0));
  return ((terms.length + roundings) * (ROUNDED * sizes + SMALLEST)) / over;
}

// The terms with the three largest products, the largest first.
function largestOf(terms) {
  const found = [];
  for (const term of terms) {
    const size = Math.abs(term.a * term.b);
    if (found.length === 3 && size <= found[2].size) continue;
    const at = found.findIndex((one) => one.size < size);
    found.splice(at < 0 ? found.length : at, 0, { size, term });
    found.length = Math.min(found.length, 3);
  }
  return found.map(({ term }) => term);
}

// "= 0.5 + 0.1·(−2) + … + 24 more terms = 0.3", the largest products first; while it plays, the sum so far.
function written(found, lit) {
  const { start, terms, over, value } = found;
  const bracket = (v) => (v < 0 ? `(${short(v)})` : short(v));
  if (lit !== null) {
    const sum = total({ ...found, terms: terms.slice(0, lit), over: 1 });
    const last = terms[lit - 1];
    return `after ${lit} of ${terms.length}: … + ${bracket(last.a)}·${bracket(last.b)} → ${short(sum)}`;
  }
  if (!terms.length) return start === null ? `= ${short(value)}` : `= ${short(start)}`;
  const ordered = largestOf(terms);
  const parts = start === null ? [] : [bracket(start)];
  parts.push(...ordered.map(({ a, b }) => (b === 1 ? bracket(a) : `${bracket(a)}·${bracket(b)}`)));
  const rest = terms.length > ordered.length ? ` + ${plural(terms.length - ordered.length, "more term")}` : "";
  const inside = parts.join(" + ") + rest;
  return `= ${over > 1 ? `(${inside}) / ${over}` : inside} = ${short(value)}`;
}
