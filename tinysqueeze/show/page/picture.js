// A picture file as pixels: upright, without colour management, white where it is transparent.

const MOST = 1 << 26; // pixels, as Python opens

// {width, height, data: RGBA bytes}. Throws an Error that says what to do.
export async function photograph(file) {
  let picture;
  try {
    picture = await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    throw new Error(`${file.name || "this"} can't be opened as a picture: choose a JPEG, PNG, WebP or GIF`);
  }
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
