// Colours: the page's own light or dark, and how numbers become colours in it.

// Orange is negative and violet positive, as in the lessons' pictures.
const LIGHT = { low: [200, 95, 0], none: [247, 247, 247], high: [70, 40, 130] };
const DARK = { low: [255, 170, 70], none: [38, 38, 46], high: [178, 155, 240] };

// "light" or "dark": what the first opaque background behind an element is.
export function themeOf(element) {
  const above = (here) => here.parentElement ?? here.getRootNode().host ?? here.ownerDocument.defaultView?.frameElement;
  for (let here = outermost(element); here; here = above(here)) {
    const parts = getComputedStyle(here).backgroundColor.match(/[\d.]+/g)?.map(Number) ?? [];
    if (parts.length >= 3 && (parts[3] ?? 1) > 0.5) {
      return 0.299 * parts[0] + 0.587 * parts[1] + 0.114 * parts[2] < 128 ? "dark" : "light";
    }
  }
  return "light";
}

// Where to begin: in a frame of another page, its ground counts, not that of the frame's own body.
const outermost = (element) => window.frameElement ?? element;

// Calls back when the page turns light or dark, until `signal` is aborted.
export function onTheme(change, signal) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => requestAnimationFrame(change), { signal });
  const observer = new MutationObserver(change);
  const around = window.frameElement?.ownerDocument ?? document;
  for (const element of [around.documentElement, around.body]) {
    observer.observe(element, { attributes: true, attributeFilter: ["class", "data-theme", "data-jp-theme-light"] });
  }
  signal?.addEventListener("abort", () => observer.disconnect());
}

// 511 colours from the most negative over zero, which is the page's own grey, to the most positive.
const ramp = (theme) => {
  const { low, none, high } = theme === "dark" ? DARK : LIGHT;
  return Array.from({ length: 511 }, (_, i) => {
    const share = Math.abs(i - 255) / 255;
    const end = i < 255 ? low : high;
    return none.map((from, k) => Math.round(from + (end[k] - from) * share));
  });
};
const TABLES = { light: ramp("light"), dark: ramp("dark") };

const placeOf = (value, most) => Math.round((most > 0 && Number.isFinite(value) ? Math.max(-1, Math.min(1, value / most)) : 0) * 255) + 255;

// [r, g, b] of a number; `most` has the full colour.
export const colourOf = (value, most, theme) => TABLES[theme][placeOf(value, most)];

// A colour as the four bytes of a pixel on a canvas.
export const packed = ([r, g, b]) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
const PACKED = { light: Uint32Array.from(TABLES.light, packed), dark: Uint32Array.from(TABLES.dark, packed) };

// The same as colourOf, as a pixel.
export const pixelOf = (value, most, theme) => PACKED[theme][placeOf(value, most)];

// pixelOf for many numbers that share one `most`, the largest of those that are finite.
export function pixelScale(most, theme) {
  const table = PACKED[theme];
  const scale = most > 0 ? 255 / most : 0;
  return (value) => table[Math.floor(value * scale + 255.5)] ?? table[255];
}

// As WCAG 2 defines it: 0 for black, 1 for white.
const luminance = (...rgb) => {
  const [r, g, b] = rgb.map((c) => (c <= 10 ? c / 3295 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};

// Background and readable text for a cell that holds a number.
export function cellStyle(value, most, theme) {
  const [r, g, b] = colourOf(value, most, theme);
  const ink = luminance(r, g, b) > 0.18 ? "#000" : "#fff"; // where black and white are read equally well
  return `background:rgb(${r},${g},${b});color:${ink}`;
}
