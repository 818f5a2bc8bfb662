// The layers' arithmetic, forward and backward: what a test holds to Python's numbers.
//
// A map is {size: [H, W, C], data: Float32Array of N*H*W*C}, channels last, as in Python; a (C,) map is
// one pixel. Sums are kept in float64 and rounded to float32 once, at the end. Convolutions are generators
// that pause after each row of pixels, so that a page can do something else in between.

export function mapOf(size, count) {
  return { size, data: new Float32Array(count * size[0] * size[1] * size[2]) };
}

export const area = (size) => size[0] * size[1] * size[2];

// Each place where a window of `node` at output pixel (row, column) sees a pixel: visit(tap, i, j).
export function seen(node, size, row, column, visit) {
  const [kh, kw] = node.kernel;
  const top = row * node.stride[0] - node.pad[0];
  const left = column * node.stride[1] - node.pad[1];
  for (let a = Math.max(0, -top); a < kh && top + a < size[0]; a++) {
    for (let b = Math.max(0, -left); b < kw && left + b < size[1]; b++) visit(a * kw + b, top + a, left + b);
  }
}

// How many pixels an average is over: padding counts, what hangs over the edge does not.
export function divisor(node, size, row, column) {
  const side = (k, place) => {
    const start = place * node.stride[k] - node.pad[k];
    return Math.min(start + node.kernel[k], size[k] + node.pad[k]) - start;
  };
  return side(0, row) * side(1, column);
}

// visit(image, row, column, pixel) for each pixel of a map, with a pause after each row.
function* eachRow(count, out, visit) {
  for (let n = 0, p = 0; n < count; n++) {
    for (let row = 0; row < out[0]; row++) {
      for (let column = 0; column < out[1]; column++, p++) visit(n, row, column, p);
      yield;
    }
  }
}

const eachPixel = (...all) => { for (const rows = eachRow(...all); !rows.next().done;); }; // without pauses

// ------------------------------------------------------------------------------------- convolution

function* convForward(node, x, { weight, bias }, count) {
  const y = mapOf(node.out, count);
  const [, width, channels] = x.size;
  const filters = node.out[2];
  const part = channels / node.groups; // channels that a filter sees
  const own = filters / node.groups; // filters of a group
  const sum = new Float64Array(filters);
  yield* eachRow(count, node.out, (n, row, column, p) => {
    if (bias) sum.set(bias);
    else sum.fill(0);
    seen(node, x.size, row, column, (tap, i, j) => {
      const pixel = ((n * x.size[0] + i) * width + j) * channels;
      for (let c = 0; c < channels; c++) {
        const value = x.data[pixel + c];
        const group = Math.floor(c / part);
        const weights = (tap * part + (c % part)) * filters;
        for (let f = group * own; f < (group + 1) * own; f++) sum[f] += value * weight[weights + f];
      }
    });
    y.data.set(sum, p * filters);
  });
  return y;
}

function* convBackward(node, x, { weight, bias }, dy, count) {
  const [height, width, channels] = x.size;
  const filters = node.out[2];
  const part = channels / node.groups;
  const own = filters / node.groups;
  const dx = new Float64Array(x.data.length);
  const dweight = new Float64Array(weight.length);
  const dbias = new Float64Array(filters);
  yield* eachRow(count, node.out, (n, row, column, p) => {
    const here = p * filters;
    for (let f = 0; f < filters; f++) dbias[f] += dy[here + f];
    seen(node, x.size, row, column, (tap, i, j) => {
      const pixel = ((n * height + i) * width + j) * channels;
      for (let c = 0; c < channels; c++) {
        const value = x.data[pixel + c];
        const group = Math.floor(c / part);
        const weights = (tap * part + (c % part)) * filters;
        let back = 0;
        for (let f = group * own; f < (group + 1) * own; f++) {
          const slope = dy[here + f];
          back += slope * weight[weights + f];
          dweight[weights + f] += value * slope;
        }
        dx[pixel + c] += back;
      }
    });
  });
  const grads = { weight: Float32Array.from(dweight) };
  if (bias) grads.bias = Float32Array.from(dbias);
  return { dx: Float32Array.from(dx), grads };
}

// ------------------------------------------------------------------------------------------- pools

function maxForward(node, x, count) {
  const y = mapOf(node.out, count);
  const [height, width, channels] = x.size;
  const winner = new Uint16Array(y.data.length); // which place of the window, the first of equals
  y.data.fill(-Infinity);
  eachPixel(count, node.out, (n, row, column, p) => {
    seen(node, x.size, row, column, (tap, i, j) => {
      const pixel = ((n * height + i) * width + j) * channels;
      for (let c = 0, at = p * channels; c < channels; c++, at++) {
        if (x.data[pixel + c] > y.data[at]) {
          y.data[at] = x.data[pixel + c];
          winner[at] = tap;
        }
      }
    });
  });
  return { ...y, winner };
}

function averageForward(node, x, count) {
  const y = mapOf(node.out, count);
  const [height, width, channels] = x.size;
  const sum = new Float64Array(channels);
  eachPixel(count, node.out, (n, row, column, p) => {
    sum.fill(0);
    seen(node, x.size, row, column, (tap, i, j) => {
      const pixel = ((n * height + i) * width + j) * channels;
      for (let c = 0; c < channels; c++) sum[c] += x.data[pixel + c];
    });
    const over = divisor(node, x.size, row, column);
    for (let c = 0; c < channels; c++) y.data[p * channels + c] = sum[c] / over;
  });
  return y;
}

function poolBackward(node, x, y, dy, count) {
  const dx = new Float64Array(x.data.length);
  const [height, width, channels] = x.size;
  eachPixel(count, node.out, (n, row, column, p) => {
    const over = node.kind === "average" ? divisor(node, x.size, row, column) : 1;
    seen(node, x.size, row, column, (tap, i, j) => {
      const pixel = ((n * height + i) * width + j) * channels;
      for (let c = 0, at = p * channels; c < channels; c++, at++) {
        if (node.kind === "average" || y.winner[at] === tap) dx[pixel + c] += dy[at] / over;
      }
    });
  });
  return { dx: Float32Array.from(dx), grads: {} };
}

function meanForward(node, x, count) {
  const y = mapOf(node.out, count);
  const [height, width, channels] = x.size;
  for (let n = 0; n < count; n++) {
    for (let c = 0; c < channels; c++) {
      let sum = 0;
      for (let p = 0; p < height * width; p++) sum += x.data[(n * height * width + p) * channels + c];
      y.data[n * channels + c] = sum / (height * width);
    }
  }
  return y;
}

function meanBackward(x, dy, count) {
  const dx = new Float32Array(x.data.length);
  const [height, width, channels] = x.size;
  const each = height * width * channels;
  for (let i = 0; i < dx.length; i++) dx[i] = dy[Math.floor(i / each) * channels + (i % channels)] / (height * width);
  return { dx, grads: {} };
}

// ------------------------------------------------------------------ batch norm, softmax, elementwise

// Mean and variance that a batch norm uses: the batch's own in training, else the running ones.
export function moments(x, params, training) {
  if (!training) return { mean: params.mean, var: params.var };
  const channels = x.size[2];
  const rows = x.data.length / channels;
  const mean = new Float64Array(channels);
  const variance = new Float64Array(channels);
  for (let i = 0; i < x.data.length; i++) mean[i % channels] += x.data[i] / rows;
  for (let i = 0; i < x.data.length; i++) variance[i % channels] += (x.data[i] - mean[i % channels]) ** 2 / rows;
  return { mean: Float32Array.from(mean), var: Float32Array.from(variance) };
}

function normForward(node, x, params, training) {
  const found = moments(x, params, training);
  const channels = x.size[2];
  const spread = Float64Array.from(found.var, (v) => Math.sqrt(v + node.eps));
  const data = x.data.map((value, i) => {
    const c = i % channels;
    return (params.weight[c] * (value - found.mean[c])) / spread[c] + params.bias[c];
  });
  return { size: x.size, data, moments: found };
}

function normBackward(node, x, params, y, dy, training) {
  const channels = x.size[2];
  const rows = x.data.length / channels;
  const { mean, var: variance } = y.moments;
  const spread = Float64Array.from(variance, (v) => Math.sqrt(v + node.eps));
  const dweight = new Float64Array(channels);
  const dbias = new Float64Array(channels);
  const normal = (i) => (x.data[i] - mean[i % channels]) / spread[i % channels];
  for (let i = 0; i < dy.length; i++) {
    dweight[i % channels] += dy[i] * normal(i);
    dbias[i % channels] += dy[i];
  }
  const dx = dy.map((slope, i) => {
    const c = i % channels;
    const through = training ? slope - dbias[c] / rows - (normal(i) * dweight[c]) / rows : slope;
    return (through * params.weight[c]) / spread[c];
  });
  return { dx, grads: { weight: Float32Array.from(dweight), bias: Float32Array.from(dbias) } };
}

// exp(x - max) / sum, of `length` numbers from `start` on, in float64.
export function softmax(data, start, length) {
  const row = Array.from(data.subarray(start, start + length));
  const most = Math.max(...row);
  const powers = row.map((v) => Math.exp(v - most));
  const total = powers.reduce((a, b) => a + b, 0);
  return powers.map((v) => v / total);
}

function softmaxForward(x) {
  const data = new Float32Array(x.data.length);
  for (let at = 0; at < data.length; at += x.size[2]) data.set(softmax(x.data, at, x.size[2]), at);
  return { size: x.size, data };
}

function softmaxBackward(x, y, dy) {
  const classes = x.size[2];
  const dx = new Float32Array(dy.length);
  for (let at = 0; at < dy.length; at += classes) {
    let mean = 0;
    for (let k = at; k < at + classes; k++) mean += y.data[k] * dy[k];
    for (let k = at; k < at + classes; k++) dx[k] = y.data[k] * (dy[k] - mean);
  }
  return { dx, grads: {} };
}

const swish = (x) => x * Math.min(Math.max(x / 6 + 0.5, 0), 1);
export const swishSlope = (x) => (x <= -3 ? 0 : x >= 3 ? 1 : x / 3 + 0.5);

// ---------------------------------------------------------------------------------- one layer, whole

// y of a node: {size, data} and what backward will need. x and second are maps, params by name.
export function* forward(node, x, params, { count, training, second, mask }) {
  const each = (data) => ({ size: node.out, data });
  switch (node.kind) {
    case "conv":
    case "linear": return yield* convForward(node, x, params, count);
    case "max": return maxForward(node, x, count);
    case "average": return averageForward(node, x, count);
    case "mean": return meanForward(node, x, count);
    case "norm": return normForward(node, x, params, training);
    case "softmax": return softmaxForward(x);
    case "relu": return each(x.data.map((v) => (v > 0 || Number.isNaN(v) ? v : 0)));
    case "hard-swish": return each(x.data.map(swish));
    case "sum": return each(x.data.map((v, i) => v + second.data[i]));
    case "dropout": return each(mask ? x.data.map((v, i) => v * mask[i]) : x.data);
    case "flatten":
    case "copy": return each(x.data);
  }
  throw new Error(`${node.path}: this page does not know how to compute ${node.what}`);
}

// {dx, grads} of a node, from dy. A sum hands dy to both of its maps.
export function* backward(node, x, params, y, dy, { count, training, mask }) {
  const each = (dx) => ({ dx, grads: {} });
  switch (node.kind) {
    case "conv":
    case "linear": return yield* convBackward(node, x, params, dy, count);
    case "max":
    case "average": return poolBackward(node, x, y, dy, count);
    case "mean": return meanBackward(x, dy, count);
    case "norm": return normBackward(node, x, params, y, dy, training);
    case "softmax": return softmaxBackward(x, y, dy);
    case "relu": return each(dy.map((v, i) => (y.data[i] > 0 ? v : 0)));
    case "hard-swish": return each(dy.map((v, i) => v * swishSlope(x.data[i])));
    case "dropout": return each(mask ? dy.map((v, i) => v * mask[i]) : dy);
  }
  return each(dy); // sum, flatten, copy
}

// The mean of the images' cross-entropies, and its gradient: (softmax - target) / N.
export function crossEntropy(logits, labels, classes) {
  const dlogits = new Float32Array(logits.length);
  const chances = labels.map((_, n) => softmax(logits, n * classes, classes));
  let loss = 0;
  chances.forEach((row, n) => {
    loss -= Math.log(row[labels[n]]) / labels.length;
    row.forEach((p, k) => { dlogits[n * classes + k] = (p - (k === labels[n] ? 1 : 0)) / labels.length; });
  });
  return { loss, chances, dlogits };
}
