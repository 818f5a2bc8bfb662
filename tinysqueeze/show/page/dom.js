// Small helpers: elements, figures with a line of text, buttons.

import { thousands } from "./numbers.js";

// An element: "on..." properties are listeners, "aria-..." and "data-..." attributes, others properties.
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.includes("-") || name === "role" || name === "for") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// An SVG element.
export function svg(tag, attributes = {}) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

// Text, attributes and style, written only where they change: a browser lays out again even what stays the same.
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function attributes(element, values) {
  for (const [name, value] of Object.entries(values)) {
    if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
  }
}

export function style(element, css) {
  if (element.css !== css) element.style.cssText = element.css = css;
}

export const button = (label, onclick, properties = {}) => h("button", { type: "button", textContent: label, onclick, ...properties });

// A picture with a heading above and a line of text below that says what it shows.
export function figure(title, picture, kind = "") {
  const heading = h("div", { className: "ts-title" }, title);
  const line = h("p", { className: "ts-line" });
  const element = h("figure", { className: `ts-figure ${kind}` }, heading, picture, line);
  return { element, heading, line };
}

export const by = (sizes) => sizes.join("×");

export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// (1, "window") -> "1 window", (2, "window") -> "2 windows".
export const plural = (count, noun) => `${thousands(count)} ${noun}${count === 1 ? "" : "s"}`;
