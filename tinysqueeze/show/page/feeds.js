// Which maps each map is computed from: what an overview lights and names.

// The maps behind one channel of a node: [{map, channel, share}], share: of the filter's length, null where
// nothing is weighed.
export function feeders(node, channel, { x, params }) {
  const [source, second] = node.sources;
  const channels = x.size[2];
  const all = () => Array.from({ length: channels }, (_, c) => ({ map: source, channel: c, share: null }));
  const one = (map, c = channel) => ({ map, channel: c, share: null });
  switch (node.kind) {
    case "conv":
    case "linear":
      return weighed(node, channel, channels / node.groups, params.weight);
    case "softmax":
    case "other": // which of them, only Python knows
      return all();
    case "flatten":
      return [one(source, channel % channels)];
    case "sum":
      return [one(source), one(second)];
  }
  return [one(source)];
}

function weighed(node, filter, part, weight) {
  const taps = node.kernel[0] * node.kernel[1];
  const first = Math.floor(filter / (node.out[2] / node.groups)) * part;
  const sizes = Array.from({ length: part }, (_, c) => {
    let squares = 0;
    for (let tap = 0; tap < taps; tap++) squares += weight[(tap * part + c) * node.out[2] + filter] ** 2;
    return squares;
  });
  const total = sizes.reduce((a, b) => a + b, 0) || 1;
  return sizes.map((size, c) => ({ map: node.sources[0], channel: first + c, share: size / total }));
}

// A function from a map's channel to {node, channel}: who wrote it, as which of its own; node null: the image.
export function writersOf({ nodes }) {
  return (map, channel) => {
    const node = nodes.find(({ target, offset, out }) => target === map && channel >= offset && channel < offset + out[2]);
    return node ? { node, channel: channel - node.offset } : { node: null, channel };
  };
}

const MOST_NAMED = 3;

// found: [{node, channel, share}] -> "all 16 channels of fire2/squeeze: most by channel 3 (21 %), 5 (14 %), 0 (9 %)".
export function behindText(found, counts) {
  const nodes = [...new Set(found.map(({ node }) => node))];
  const parts = nodes.map((node) => {
    const own = found.filter((one) => one.node === node);
    const name = node ? node.path || "the layer" : "the image";
    if (own.length === 1) return `channel ${own[0].channel} of ${name}`;
    return own.length === counts(node) ? `all ${own.length} channels of ${name}` : `channels ${own[0].channel} to ${own.at(-1).channel} of ${name}`;
  });
  const ranked = found.filter(({ share }) => share !== null).toSorted((a, b) => b.share - a.share).slice(0, MOST_NAMED);
  const most = ranked.map(({ node, channel, share }) => `${nodes.length > 1 && node ? `${node.path} ` : ""}${channel} (${Math.round(100 * share)} %)`);
  return parts.join(" and ") + (found.length > 1 && ranked.length ? `; by its weights most of channel ${most.join(", ")}` : "");
}
