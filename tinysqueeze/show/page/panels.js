// The panels: from the controls' values to a table, sentences and a picture. Python says the same.

import { fire, mixed, share, squeezenet, total } from "./counts.js";
import { barsOf, fireOf, networkOf, placesOf } from "./diagrams.js";
import { by, h } from "./dom.js";
import { grid } from "./grids.js";
import { brief, fixed, thousands, whole } from "./numbers.js";

const bytesOfMaps = (rows) => total(rows, "bytes");

const AXES = { channels: "input channels", filters: "filters", size: "pixels a side", percent3x3: "percent 3×3" };

// What was timed at this very setting: [{name, median, low, high}...], and how it is said.
function timed({ axes, runs, milliseconds }, names, { channels, filters, percent3x3, size }) {
  const times = [0, percent3x3, 100].flatMap((percent, i) => {
    const found = milliseconds[[channels, filters, size, percent].join()];
    return found ? [{ name: names[i], median: found[0], low: found[1], high: found[2] }] : [];
  });
  const words = times.map((t) => `${t.name} ${fixed(t.median, 2)} (${fixed(t.low, 2)} to ${fixed(t.high, 2)})`);
  const said = times.length ? [`milliseconds on one thread, median of ${runs} (and quartiles): ${words.join(", ")}`] : [];
  if (times.length < names.length) {
    const missing = times.length ? "your mix was" : "milliseconds were";
    const where = Object.entries(AXES).map(([axis, name]) => `${name} ${axes[axis].join(", ")}`);
    said.push(`${missing} not measured at this setting; measured: ${where.join("; ")}`);
  }
  return { times, said };
}

function oneByOne(values, data) {
  const { channels, filters, percent3x3, size } = values;
  const names = ["1×1 only", "your mix", "3×3 only"];
  const costs = [0, percent3x3, 100].map((percent) => mixed(channels, filters, percent, size));
  const sums = (column) => costs.map((rows) => total(rows, column));
  const columns = [["parameters", sums("parameters")], ["multiply-adds", sums("multiplyAdds")], ["activation bytes", sums("bytes")]];
  const { times, said } = timed(data, names, values);
  const measures = times.length < names.length ? columns : [...columns, ["milliseconds, measured", times.map((t) => t.median)]];
  const work = sums("multiplyAdds");
  return {
    head: columns.map(([name]) => name),
    rows: names.map((name, i) => [name, ...columns.map(([, list]) => thousands(list[i]))]),
    lines: [
      `weights of a 3×3 filter: 9·${channels} = ${thousands(9 * channels)}; of a 1×1 filter: ${thousands(channels)}; multiply-adds 3×3 / 1×1 = ${fixed(work[2] / work[0], 1)}`,
      ...said,
    ],
    picture: barsOf(measures.map(([name, list]) => [name, list.map((value, i) => ({ name: names[i], value, text: brief(value) }))])),
  };
}

function fireDesigner({ squeeze, expand1x1, expand3x3, channels, size }) {
  const module = { squeeze, expand1x1, expand3x3 };
  const parameters = total(fire(module, channels, size), "parameters");
  const filters = expand1x1 + expand3x3;
  const direct = 9 * channels * expand3x3 + channels * expand1x1 + filters;
  const refused = `REFUSED. Fire: the squeeze layer (${squeeze} filters) must be narrower than the expand layer (${filters}): that is Strategy 2, fewer input channels to the 3x3 filters; pass allow_wide_squeeze=True to build it all the same`;
  return {
    lines: [
      `${thousands(parameters)} parameters; the same expand filters without a squeeze layer: ${thousands(direct)} (${fixed(direct / parameters, 1)} times)`,
      `the 3×3 filters see ${squeeze} channels, not ${channels}; squeeze ratio ${fixed(squeeze / filters, 3)}`,
      squeeze < filters ? "Strategy 2 holds" : refused,
    ],
    picture: fireOf(module, channels, size),
  };
}

function designSpace(values, { alexnet }) {
  const { rows, steps } = squeezenet(values);
  const size = (total(rows, "parameters") * 4) / 1e6;
  const percent = (kernel) => `${fixed(100 * share(rows, kernel), 0)}%`;
  return {
    lines: [
      `${thousands(total(rows, "parameters"))} parameters = ${fixed(size, 2)} MB in float32; AlexNet has ${fixed(alexnet, 1)} MB, ${fixed(alexnet / size, 1)} times as much`,
      `${whole(total(rows, "multiplyAdds") / 1e6)} million multiply-adds an image; ${fixed(bytesOfMaps(rows) / 1e6, 1)} MB of activations`,
      `${percent(3)} of the parameters are in 3×3 filters, ${percent(1)} in 1×1`,
    ],
    picture: networkOf(steps),
  };
}

function earlyOrLate({ first, second, third }) {
  const pools = [...new Set([first, second, third])].sort((a, b) => a - b);
  const { rows, steps } = squeezenet({ pools });
  const paper = squeezenet({}).rows;
  const [here, there] = [rows, paper].map((list) => total(list, "multiplyAdds"));
  const same = total(rows, "parameters") === total(paper, "parameters");
  return {
    lines: [
      `pools after layers ${pools.join(", ")}: ${thousands(total(rows, "parameters"))} parameters (${same ? "unchanged" : "changed"})`,
      `${whole(here / 1e6)} million multiply-adds (${fixed(here / there, 2)} times the paper's), ${brief(bytesOfMaps(rows))}B of activations (${fixed(bytesOfMaps(rows) / bytesOfMaps(paper), 2)} times)`,
    ],
    picture: networkOf(steps),
  };
}

function windowPlaces({ size, kernel, stride, pad }) {
  const room = size + 2 * pad - kernel;
  if (room < 0) { // in the words of the library's own error
    const least = Math.max(kernel - 2 * pad, 1);
    const line = `a ${kernel}x${kernel} window with padding (${pad}, ${pad}) needs an image of at least ${least}x${least} pixels, got ${size}x${size}`;
    return { lines: [line], picture: "" };
  }
  const places = Math.floor(room / stride) + 1;
  return {
    lines: [
      `size + 2·padding − kernel = ${size} + ${2 * pad} − ${kernel} = ${room}`,
      `${room} / stride ${stride} = ${Number((room / stride).toPrecision(6))}, rounded down ${places - 1}, plus 1: ${places} ${places === 1 ? "place" : "places"}, so the output has ${by([places, places])} numbers`,
    ],
    picture: placesOf(size, kernel, stride, pad, places),
  };
}

// Gradients by finite differences are Python's: the page holds them for every bug.
function plantedBug({ bug }, data, theme) {
  const { rows, maps } = data[bug];
  const most = Math.max(...maps.flatMap(({ values }) => values.map(Math.abs)));
  const grids = maps.map(({ name, size, values }) => {
    const one = grid();
    one.draw({ title: `${name} ${by(size)}`, size: size.length === 2 ? size : [1, size[0]], values, theme, most });
    return one.element;
  });
  return { rows, lines: [], picture: h("div", { className: "ts-grids" }, ...grids) };
}

export const PANELS = {
  window_places: windowPlaces, one_by_one: oneByOne, fire_designer: fireDesigner, design_space: designSpace, early_or_late: earlyOrLate, gradient_heat_map: plantedBug,
};
