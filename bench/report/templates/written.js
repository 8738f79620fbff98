// How figures are written: as bench/report/written.py does, to the last digit.
const MISSING = "–";
const missing = (value) => value === null || Number.isNaN(value);

function fixed(value, digits = 3) {
  if (missing(value)) return MISSING;
  let text = value.toFixed(digits);
  // A true tie goes to the even digit, as in Python; toFixed rounds it up.
  const scaled = Math.abs(value) * 10 ** digits;
  if (Number.isInteger(value * 2 ** (digits + 1)) && scaled % 1 === 0.5) {
    text = ((Math.sign(value) * 2 * Math.round(scaled / 2)) / 10 ** digits).toFixed(digits);
  }
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

const signed = (value) => (missing(value) ? MISSING : (fixed(value).startsWith("−") ? "" : "+") + fixed(value));

const chance = (value) => (value > 0.99 ? "> 0.99" : value < 0.01 ? "< 0.01" : fixed(value, 2));

const three = (value) => (value === 0 ? "0" : String(Number(fixed(value, Math.max(0, 2 - Math.floor(Math.log10(value)))))));

function seconds(value) {
  if (missing(value)) return MISSING;
  for (const [limit, divisor, unit] of [[120, 1, "s"], [7200, 60, "min"], [172800, 3600, "h"]]) {
    if (value < limit) return `${three(value / divisor)} ${unit}`;
  }
  return `${three(value / 86400)} d`;
}

function count(value) {
  if (missing(value)) return MISSING;
  for (const [divisor, unit] of [[1e9, " G"], [1e6, " M"], [1e3, " k"]]) {
    if (value >= divisor) return three(value / divisor) + unit;
  }
  return three(value);
}

const plural = (n, noun) => `${n.toLocaleString("en-GB")} ${n === 1 ? noun : noun.endsWith("y") ? `${noun.slice(0, -1)}ies` : `${noun}s`}`;
const together = (names) => (names.length > 1 ? `${names.slice(0, -1).join(", ")} and ${names.at(-1)}` : names[0]);
