// A picture, by its file or its address, as pixels: upright, without colour management, white where it is transparent.

import { fetched } from "./address.js";

const MOST = 1 << 26; // pixels, as Python opens

// A picture file, or what is at an address, as a bitmap. Throws an Error that says what to do.
export async function bitmapOf(source, how) {
  const file = typeof source === "string" ? await fetched(source) : source;
  try {
    return await createImageBitmap(file, how);
  } catch {
    throw new Error(`${file.name || "this"} can't be opened as a picture: choose a JPEG, PNG, WebP or GIF`);
  }
}

// {width, height, data: RGBA bytes} of a file or an address. Throws an Error that says what to do.
export async function photograph(source) {
  const picture = await bitmapOf(source, { colorSpaceConversion: "none" });
  const { width, height } = picture;
  if (width * height > MOST) throw new Error(`${width}×${height} pixels are more than this page opens: choose a smaller picture`);
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(picture, 0, 0);
  picture.close();
  return { width, height, data: context.getImageData(0, 0, width, height).data };
}

// The first picture among what was dropped or pasted; null if there is none.
export function pictureIn(transfer) {
  return [...(transfer?.files ?? [])].find((file) => file.type.startsWith("image/")) ?? transfer?.files?.[0] ?? null;
}
