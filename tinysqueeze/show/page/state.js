// From the bytes that Python packs (state.py) to a state: what a step is made of.

const FORMAT = 1;

export async function unzipped(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

// base64 -> bytes.
export function bytesOf(text) {
  return Uint8Array.from(atob(text.trim()), (letter) => letter.charCodeAt(0));
}

// bytes: Uint8Array or DataView. The header's fields, and the arrays by what they are.
export async function unpack(bytes) {
  const buffer = await unzipped(bytes);
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  if (header.format !== FORMAT) throw new Error(`this page reads format ${FORMAT}, the step is in ${header.format}`);
  const found = { params: {}, y: {}, dx: {}, mask: {}, grad: {} };
  let at = 4 + length;
  for (const [name, shape] of header.arrays) {
    const size = shape.reduce((a, b) => a * b, 1);
    const floats = new Float32Array(buffer, at, size);
    const [kind, path] = name.split(/\/(.*)/s);
    if (path === undefined) found[kind] = floats;
    else found[kind][path] = floats;
    at += 4 * size;
  }
  const grads = {};
  for (const [path, array] of Object.entries(found.grad)) {
    const cut = path.lastIndexOf("/");
    (grads[path.slice(0, cut)] ??= {})[path.slice(cut + 1)] = array;
  }
  const names = header.classes;
  const flat = (map) => header.shapes[map].length === 1; // (C,), which the page holds as one pixel
  for (const node of header.nodes) node.flat = { x: flat(node.sources[0]), y: flat(node.target) };
  return { ...header, ...found, grads, className: (k) => names[k] || `class ${k}` };
}
