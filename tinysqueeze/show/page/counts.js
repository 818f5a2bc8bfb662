// What layers cost, in short formulas: parameters, multiply-adds, bytes of maps. Python's `count` is the oracle.

import { roundEven } from "./numbers.js";

const FLOAT_BYTES = 4;

// A convolution with bias that gives size x size x filters.
const convolution = (kernel, channels, filters, size) => ({
  kernel,
  parameters: kernel * kernel * channels * filters + filters,
  multiplyAdds: size * size * filters * kernel * kernel * channels,
  bytes: size * size * filters * FLOAT_BYTES,
});

// A layer that learns nothing: a ReLU, a pool, dropout.
const plain = (channels, size) => ({ kernel: 0, parameters: 0, multiplyAdds: 0, bytes: size * size * channels * FLOAT_BYTES });

// 1x1 and 3x3 filters side by side; an arm without filters is absent.
const expand = (channels, narrow, wide, size) => [
  ...(narrow ? [convolution(1, channels, narrow, size)] : []),
  ...(wide ? [convolution(3, channels, wide, size)] : []),
];

export const total = (rows, column) => rows.reduce((sum, row) => sum + row[column], 0);

export const share = (rows, kernel) =>
  total(rows.filter((row) => row.kernel === kernel), "parameters") / Math.max(total(rows, "parameters"), 1);

// A number of filters, `percent` of them 3x3.
export function mixed(channels, filters, percent, size) {
  const wide = roundEven(filters * (percent / 100));
  return expand(channels, filters - wide, wide, size);
}

// A Fire module: squeeze, ReLU, both expands, ReLU.
export const fire = ({ squeeze, expand1x1, expand3x3 }, channels, size) => [
  convolution(1, channels, squeeze, size),
  plain(squeeze, size),
  ...expand(squeeze, expand1x1, expand3x3, size),
  plain(expand1x1 + expand3x3, size),
];

// Windows of a 3x3 max-pool of stride 2 that may hang over the edge, but start inside.
function pooled(size) {
  const room = size - 3;
  const count = Math.floor(room / 2) + 1;
  return room % 2 && count * 2 < size ? count + 1 : count;
}

const PAPER = { squeeze_ratio: 0.125, pct3x3: 0.5, base_e: 128, incr_e: 128, freq: 2, bypass: "none", pools: [1, 4, 8] };

// SqueezeNet v1.0 for 227x227 images with other metaparameters: {rows, steps}; a step is what is drawn.
export function squeezenet(changes) {
  const how = { ...PAPER, ...changes };
  let [channels, size] = [96, Math.floor((227 - 7) / 2) + 1];
  const rows = [convolution(7, 3, channels, size), plain(channels, size)];
  const steps = [{ name: "conv1", size, channels, kind: "conv" }];
  const poolAfter = (layer) => {
    if (!how.pools.includes(layer)) return;
    size = pooled(size);
    rows.push(plain(channels, size));
    steps.push({ name: `pool${layer}`, size, channels, kind: "pool" });
  };
  poolAfter(1);
  for (let i = 0; i < 8; i++) {
    const filters = how.base_e + how.incr_e * Math.floor(i / how.freq);
    const wide = roundEven(how.pct3x3 * filters);
    const module = { squeeze: Math.max(1, roundEven(how.squeeze_ratio * filters)), expand1x1: filters - wide, expand3x3: wide };
    const alike = channels === filters;
    rows.push(...fire(module, channels, size));
    if (how.bypass === "complex" && !alike) rows.push(convolution(1, channels, filters, size));
    const around = how.bypass === "none" ? "" : alike ? "plain" : how.bypass === "complex" ? "conv" : "";
    channels = filters;
    steps.push({ name: `fire${i + 2}`, size, channels, kind: "fire", ...module, around });
    poolAfter(i + 2);
  }
  rows.push(plain(channels, size), convolution(1, channels, 1000, size), plain(1000, size), plain(1000, 1));
  steps.push({ name: "conv10", size, channels: 1000, kind: "conv" }, { name: "pool10", size: 1, channels: 1000, kind: "pool" });
  return { rows, steps };
}
