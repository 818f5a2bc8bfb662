// A whole network in WebAssembly: its weights unpacked from the compressed file, every map kept.

const PAGE = 65536; // bytes by which WebAssembly's memory grows
const BLOCK = 8; // filters side by side in packed weights, as engine.c wants them

export const product = (sizes) => sizes.reduce((a, b) => a * b, 1);

export class Engine {
  // code: the module's bytes; network: what photo.py says of it; file: the .tsq's bytes. Throws an Error
  // that says what is wrong with the file.
  static async open(code, network, file) {
    const { instance } = await WebAssembly.instantiate(code);
    return new Engine(instance.exports, network, file);
  }

  constructor(run, network, file) {
    this.run = run;
    this.network = network;
    this.top = run.__heap_base.value;
    const started = performance.now();
    const arrays = this.#unpacked(file);
    this.#fold(arrays);
    this.#lay(arrays);
    this.unpacking = performance.now() - started; // milliseconds
    this.floor = this.top; // above it: photographs, one after another
  }

  // So many bytes, for good: the number of the first, a multiple of 16.
  room(bytes) {
    const start = Math.ceil(this.top / 16) * 16;
    this.top = start + bytes;
    const missing = this.top - this.run.memory.buffer.byteLength;
    if (missing > 0) this.run.memory.grow(Math.ceil(missing / PAGE));
    return start;
  }

  // Numbers into the memory: where they stand.
  put(numbers) {
    const start = this.room(numbers.byteLength);
    new Uint8Array(this.run.memory.buffer, start, numbers.byteLength).set(new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength));
    return start;
  }

  floats(start, count) {
    return new Float32Array(this.run.memory.buffer, start, count);
  }

  #unpacked(file) {
    const { arrays, stamp: [version, metadata] } = this.network;
    const places = new Map(arrays.map(([path, count]) => [path, this.room(4 * count)]));
    const before = this.top; // the file and its table are needed once
    const table = this.put(Uint32Array.from(arrays.flatMap(([path, count]) => [places.get(path), count])));
    const about = this.put(Uint32Array.of(table, arrays.length, version, metadata));
    const code = this.run.unpack(this.put(file), file.length, about);
    this.top = before;
    if (code) throw new Error(`the compressed weights are ${this.#text(this.run.trouble(code))}`);
    return places;
  }

  #text(start) {
    const bytes = new Uint8Array(this.run.memory.buffer, start);
    return new TextDecoder().decode(bytes.slice(0, bytes.indexOf(0)));
  }

  // Arrays that convolutions have beside those in the file, and batch norms folded into them.
  #fold(places) {
    for (const [path, count, value] of this.network.made) {
      places.set(path, this.room(4 * count));
      this.run.fill_with(places.get(path), value, count);
    }
    for (const fold of this.network.folds) {
      const about = this.room(24);
      const parts = ["weight", "bias", "mean", "var"].map((kind) => places.get(`${fold.norm}/${kind}`) + 4 * fold.first);
      new Uint32Array(this.run.memory.buffer, about, 4).set(parts);
      new Float64Array(this.run.memory.buffer, about + 16, 1)[0] = fold.eps;
      this.run.fold_norm(about, places.get(fold.weight), places.get(fold.bias), fold.rows, fold.filters);
    }
  }

  // Maps, tables and packed weights: what each layer is called with.
  #lay(places) {
    const { nodes, shapes } = this.network;
    this.maps = shapes.map((shape) => this.room(4 * product(shape)));
    const padded = nodes.map(({ geometry: [height, width, channels, , , , , down, across] = [0, 0, 0] }) => 4 * (height + 2 * down) * (width + 2 * across) * channels);
    const room = this.room(Math.max(...padded.filter(Number.isFinite)));
    this.calls = nodes.map((node) => {
      const [x, y] = [this.maps[node.sources[0]], this.maps[node.target]];
      const [size, count] = [shapes[node.sources[0]], product(shapes[node.target])];
      if (node.kind === "conv") {
        const own = { weight: places.get(node.weight), bias: places.get(node.bias) };
        const wide = node.groups === 1;
        if (wide) own.weight = this.#packed(own.weight, node);
        const table = this.put(Int32Array.of(...node.geometry, node.filters, node.groups, own.weight, own.bias, node.relu));
        return wide ? () => this.run.run_conv(table, x, room, y) : () => this.run.run_groups(table, x, y);
      }
      if (node.kind === "pool") {
        const table = this.put(Int32Array.of(...node.geometry, node.mean, 0));
        return () => this.run.run_any_pool(table, x, y);
      }
      if (node.kind === "mean") return () => this.run.run_average(x, product(size.slice(0, -1)), size.at(-1), y);
      if (node.kind === "sum") return () => this.run.run_sum(node.relu, x, this.maps[node.sources[1]], y, count);
      return () => this.run.run_activation(node.kind === "relu" ? 0 : 1, x, y, count);
    });
  }

  #packed(weight, { rows, filters }) {
    const start = this.room(4 * rows * Math.ceil(filters / BLOCK) * BLOCK);
    this.run.pack(weight, rows, filters, start);
    return start;
  }

  // A photograph, {width, height, data: RGBA bytes}, made ready as the weights want it and put in map 0;
  // the pixels that the network sees, RGBA, in `seen`.
  take({ width, height, data }) {
    const { resize, crop, channels, divide_by: divide, mean, std } = this.network.preprocess;
    const [wide, high] = typeof resize === "number"
      ? [width, height].map((side) => Math.trunc((resize * side) / Math.min(width, height)))
      : [resize[1], resize[0]];
    this.top = this.floor;
    const pixels = this.#resized(this.put(data), [width, height], [wide, high]);
    const [left, top] = [wide - crop[1], high - crop[0]].map((margin) => even(margin / 2));
    const how = this.room(4 * 14);
    new Int32Array(this.run.memory.buffer, how, 7).set([wide, high, left, top, ...crop, Number(channels === "BGR")]);
    this.floats(how + 28, 7).set([divide, ...mean, ...std]);
    this.run.prepare(how, pixels, this.maps[0]);
    this.seen = this.#cropped(pixels, wide, high, left, top, crop);
  }

  // RGBA pixels of one size in another, by Pillow's two passes: where they stand.
  #resized(pixels, [width, height], [wide, high]) {
    const weights = this.room(4 * (2 * Math.max(width, height) + 3));
    let [at, now] = [pixels, [width, height]];
    const pass = (axis, size) => {
      if (now[axis] === size) return;
      const next = axis ? [now[0], size] : [size, now[1]];
      const out = this.room(4 * next[0] * next[1]);
      const steps = ([row]) => (axis ? [4 * row, 4] : [4, 4 * row]);
      this.run.resample(at, now[axis], ...steps(now), out, size, ...steps(next), now[1 - axis], weights);
      [at, now] = [out, next];
    };
    const downFirst = height - high > Math.max(0, 2 * (width - wide)); // as Pillow chooses
    for (const axis of downFirst ? [1, 0] : [0, 1]) pass(axis, [wide, high][axis]);
    return at;
  }

  #cropped(pixels, wide, high, left, top, [height, width]) {
    const all = new Uint8Array(this.run.memory.buffer, pixels, 4 * wide * high);
    const seen = new Uint8ClampedArray(4 * width * height);
    for (let i = 0, at = 0; i < height; i++) {
      for (let j = 0; j < width; j++, at += 4) {
        const [row, column] = [top + i, left + j];
        if (row >= 0 && row < high && column >= 0 && column < wide) seen.set(all.subarray(4 * (row * wide + column), 4 * (row * wide + column) + 3), at);
        seen[at + 3] = 255;
      }
    }
    return { width, height, data: seen };
  }

  // All layers, for what stands in map 0; what each took, in milliseconds.
  forward() {
    this.times = this.calls.map((call) => {
      const started = performance.now();
      call();
      return performance.now() - started;
    });
    return this.map(this.network.output);
  }

  // A map's numbers: a copy.
  map(number) {
    return this.floats(this.maps[number], product(this.network.shapes[number])).slice();
  }
}

// To the nearest whole number; halves to the even one, as Python rounds.
function even(x) {
  const low = Math.floor(x);
  return x - low !== 0.5 ? Math.round(x) : low + (((low % 2) + 2) % 2);
}
