// A whole training step: every layer forward, the loss, every layer backward, and the update.
//
// Its methods are generators that pause every now and then; `unhurried` runs them without blocking the page.

import { area, backward, crossEntropy, forward, mapOf } from "./arithmetic.js";

export class Step {
  // state: what state.js unpacks. params: name -> Float32Array, the state's own if not given.
  constructor(state, params = state.params) {
    this.state = state;
    this.params = params;
    this.labels = state.labels;
    this.count = this.labels.length;
    this.maps = state.shapes.map((shape) => mapOf(shape.length === 3 ? shape : [1, 1, shape[0]], 0));
    this.maps[0].data = state.images;
    this.seen = new Map(); // path -> {x, y, dy, dx, grads, params}
  }

  // Forward, the loss, and backward.
  *whole() {
    yield* this.forward();
    return yield* this.backward();
  }

  *forward() {
    const { nodes, output } = this.state;
    for (const [i, node] of nodes.entries()) yield* told(`forward, layer ${i + 1} of ${nodes.length}: ${node.path}`, this.#forward(node));
    Object.assign(this, crossEntropy(this.maps[output].data, this.labels, this.maps[output].size[2]));
    return this;
  }

  // The gradients, computed when first asked for.
  *backward() {
    if (this.slopes) return this;
    const { nodes, output } = this.state;
    this.slopes = this.maps.map((map) => new Float32Array(map.data.length));
    this.slopes[output] = this.dlogits;
    for (const [i, node] of nodes.toReversed().entries()) yield* told(`backward, layer ${i + 1} of ${nodes.length}: ${node.path}`, this.#backward(node));
    return this;
  }

  // The same step with other parameters: each one moved against its gradient.
  *next(rate) {
    yield* this.backward();
    const moved = Object.fromEntries(Object.entries(this.params).map(([name, old]) => {
      const cut = name.lastIndexOf("/");
      const grad = this.seen.get(name.slice(0, Math.max(cut, 0))).grads[name.slice(cut + 1)];
      return [name, grad ? old.map((value, i) => value - rate * grad[i]) : old];
    }));
    return yield* new Step(this.state, moved).forward();
  }

  *#forward(node) {
    const record = { x: this.maps[node.sources[0]], params: this.#own(node.path) };
    record.how = {
      count: this.count,
      training: this.state.training,
      second: this.maps[node.sources[1]],
      mask: this.state.mask[node.path],
    };
    const stored = this.state.y[node.path]; // by other operations than ours: what their sums explain is ours all the same
    record.y = node.kind === "other" ? { size: node.out } : yield* forward(node, record.x, record.params, record.how);
    if (stored) record.y.data = stored;
    this.seen.set(node.path, record);
    const target = this.maps[node.target];
    if (node.out[2] === target.size[2]) target.data = record.y.data;
    else {
      if (!target.data.length) target.data = new Float32Array(this.count * area(target.size));
      each(node, target, this.count, (from, to) => { target.data[to] = record.y.data[from]; });
    }
  }

  *#backward(node) {
    const record = this.seen.get(node.path);
    const target = this.maps[node.target];
    const slope = this.slopes[node.target];
    if (node.out[2] === target.size[2]) record.dy = slope;
    else {
      record.dy = new Float32Array(record.y.data.length);
      each(node, target, this.count, (from, to) => { record.dy[from] = slope[to]; });
    }
    const dx = this.state.dx[node.path];
    const found = dx
      ? { dx, grads: this.state.grads[node.path] ?? {} }
      : yield* backward(node, record.x, record.params, record.y, record.dy, record.how);
    Object.assign(record, found);
    for (const source of node.sources) {
      const into = this.slopes[source];
      for (let i = 0; i < into.length; i++) into[i] += found.dx[i];
    }
  }

  // A layer's parameters by their own names.
  #own(path) {
    const names = ["weight", "bias", "mean", "var"];
    return Object.fromEntries(names.map((name) => [name, this.params[path ? `${path}/${name}` : name]]));
  }
}

// The same work, saying what it is at each pause.
function* told(words, work) {
  yield words;
  for (;;) {
    const { done, value } = work.next();
    if (done) return value;
    yield words;
  }
}

// The numbers of a node that fills only some channels of its map: visit(place in y, place in the map).
function each(node, target, count, visit) {
  const channels = node.out[2];
  const pixels = count * node.out[0] * node.out[1];
  for (let p = 0; p < pixels; p++) {
    for (let c = 0; c < channels; c++) visit(p * channels + c, p * target.size[2] + node.offset + c);
  }
}
