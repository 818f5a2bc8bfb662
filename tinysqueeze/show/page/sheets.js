// Many small pictures on few long canvases: a browser pays for each canvas in every frame that it draws.

import { h } from "./dom.js";

const LONG = 2000; // CSS pixels; no browser's canvas ends before

// element: as large as said, for a place above or below other things. put(picture, left, top) draws.
export function sheets(width, height) {
  const element = h("div", { className: "ts-sheets", "aria-hidden": "true" });
  element.style.cssText = `width:${width}px;height:${height}px`;
  const scale = devicePixelRatio > 1 ? 2 : 1; // pixels of the canvas a CSS pixel
  const contexts = [];
  for (let left = 0; left < width; left += LONG) {
    const wide = Math.min(LONG, width - left);
    const canvas = h("canvas", { width: wide * scale, height: height * scale });
    canvas.style.cssText = `left:${left}px;width:${wide}px;height:${height}px`;
    element.append(canvas);
    contexts.push(canvas.getContext("2d"));
  }
  // A picture of wide x high CSS pixels: colour(row, column) of a map of rows x columns, as a packed pixel.
  function put([left, top, wide, high], [rows, columns], colour) {
    const picture = new ImageData(wide * scale, high * scale);
    const pixels = new Uint32Array(picture.data.buffer);
    for (let i = 0, at = 0; i < picture.height; i++) {
      const row = Math.floor((i * rows) / picture.height);
      for (let j = 0; j < picture.width; j++, at++) pixels[at] = colour(row, Math.floor((j * columns) / picture.width));
    }
    for (let k = Math.floor(left / LONG); k * LONG < left + wide; k++) contexts[k]?.putImageData(picture, (left - k * LONG) * scale, top * scale);
  }
  return { element, put };
}
