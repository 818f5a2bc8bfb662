// Numbers as text, as Python's format() writes them, ties to even included: a test compares the two.

const GROUPED = new Intl.NumberFormat("en-US");

// 1234567 -> "1,234,567".
export const thousands = (value) => GROUPED.format(value);

// A number in four digits.
export function short(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 1e-3 && size < 1e5 ? String(Number(value.toPrecision(4))) : value.toExponential(2);
  return text.replaceAll("-", "−");
}

// Enough digits to give the same float back: 9 for float32, 17 for what is between.
export const exact = (value) => {
  const digits = Math.fround(value) === value ? 9 : 17;
  return String(Number(value.toPrecision(digits))).replaceAll("-", "−");
};

// Python's round(): of two whole numbers as near, the even one.
export function roundEven(value) {
  const low = Math.floor(value);
  if (value - low !== 0.5) return Math.round(value);
  return low % 2 ? low + 1 : low;
}

// f"{value:.{digits}f}": toFixed, but for exact ties, which go to the even digit.
export function fixed(value, digits) {
  const all = value.toFixed(90); // a float's own decimal digits, as many as matter here
  const cut = all.length - 90 + digits;
  if (!/^50*$/.test(all.slice(cut))) return value.toFixed(digits);
  const down = all.slice(0, digits ? cut : cut - 1);
  return Number(down.at(-1)) % 2 ? value.toFixed(digits) : down;
}

// f"{value:,.0f}".
export const whole = (value) => thousands(Number(fixed(value, 0)));

// 1248424 -> "1.25 M"; three digits that count.
export function brief(value) {
  for (const [size, letter] of [[1e9, " G"], [1e6, " M"], [1e3, " k"]]) {
    if (Math.abs(value) >= size) return `${threeDigits(value / size)}${letter}`;
  }
  return threeDigits(value);
}

// f"{value:.3g}" of numbers from 0.0001 to 999.
function threeDigits(value) {
  if (value === 0) return "0";
  const left = Math.floor(Math.log10(Math.abs(value))) + 1;
  return String(Number(fixed(value, Math.max(3 - left, 0))));
}

// A probability in percent, never 0 % of what is more, or 100 % of what is less: small ones in two digits that count.
export function percent(p, digits = p < 0.0995 ? 1 : 0) {
  const value = 100 * p;
  const text = value.toFixed(digits);
  if (p > 0 && value < 0.0995) return value < 0.001 ? "< 0.001 %" : `${Number(value.toPrecision(2))} %`;
  return p < 1 && Number(text) === 100 ? `> ${(100 - 10 ** -digits).toFixed(digits)} %` : `${text} %`;
}
