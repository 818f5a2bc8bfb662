// From the bytes that Python packs (photo.py) to what the photo page runs.

import { unzipped } from "./state.js";

// {header, code, file, examples: [{name, blob}]}.
export async function unpackPhoto(bytes) {
  const buffer = await unzipped(bytes);
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  let at = 4 + length;
  const [code, file, ...pictures] = header.sizes.map((size) => new Uint8Array(buffer, (at += size) - size, size));
  const examples = pictures.map((picture, i) => ({ name: header.examples[i], blob: new Blob([picture]) }));
  return { header, code, file, examples };
}
