// Figures and names of the API in words for people.
const whole = new Intl.NumberFormat("en");

export const exactly = (value) => whole.format(value);

export function number(value) {
  for (const [size, letter] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]]) {
    const scaled = Math.abs(value) / size;
    if (scaled >= 0.9995) return (value / size).toFixed(scaled < 9.995 ? 2 : scaled < 99.95 ? 1 : 0) + letter;
  }
  return String(value);
}

// As short as a limit is written in the configuration: 20k, 2.5M.
export const short = (value) => number(value).replace(/(\.\d*?)0+(?=\D*$)/, "$1").replace(/\.(?=\D*$)/, "");

// All is all and nothing is nothing: neither is rounded to.
export function share(value) {
  const percent = value * 100;
  if (percent === 0 || percent >= 100) return percent.toFixed(0) + " %";
  return percent < 0.1 ? "<0.1 %" : Math.min(percent, 99.9).toFixed(1) + " %";
}

export const signed = (value, write) => (value > 0 ? "+" : value < 0 ? "−" : "") + write(Math.abs(value));
export const many = (count, one, more = one + "s") => `${number(count)} ${count === 1 ? one : more}`;

export function seconds(value) {
  if (value === null) return "–";
  return value < 0.0995 ? (value * 1000).toFixed(1) + " ms" : value < 0.9995 ? Math.round(value * 1000) + " ms" : value.toFixed(1) + " s";
}

export function span(total) {
  const s = Math.max(0, Math.round(total));
  if (s < 60) return s + " s";
  if (s < 3600) return Math.floor(s / 60) + " min" + (s < 600 && s % 60 ? ` ${s % 60} s` : "");
  if (s < 86400) return Math.floor(s / 3600) + " h " + Math.floor((s % 3600) / 60) + " min";
  return Math.floor(s / 86400) + " d " + Math.floor((s % 86400) / 3600) + " h";
}

const written = {};

function write(style, zone, at) {
  const writer = (written[JSON.stringify(style) + zone] ??= new Intl.DateTimeFormat("en-GB", { ...style, timeZone: zone }));
  return writer.format(new Date(at * 1000));
}

export const clock = (at, zone) => write({ dateStyle: "medium", timeStyle: "medium" }, zone, at);
export const timeOfDay = (at, zone) => write({ hour: "2-digit", minute: "2-digit", second: "2-digit" }, zone, at);
export const mark = (at, zone, range) =>
  write(range > 172800 ? { weekday: "short", day: "numeric" } : { hour: "2-digit", minute: "2-digit" }, zone, at);

const reasons = {
  window_full: "Window full",
  quota_spent: "Budget spent",
  never_fits: "Request too large",
  model_denied: "Model not allowed",
  output_cap_required: "No output cap named",
};

export const reason = (row, limit) => (reasons[row] ?? "Refused") + (limit ? `: ${limit}` : "");

const outcomes = {
  ok: ["Answered", ""],
  refused: ["Refused", "warn"],
  upstream_error: ["Upstream failed", "bad"],
  cut: ["Broke off", "bad"],
  released: ["Declined", "warn"],
  cancelled: ["Caller left", ""],
  exhausted: ["Cut at its budget", "warn"],
  abandoned: ["Abandoned", "bad"],
};

export const outcome = (name) => outcomes[name] ?? [name, ""];

export function unit(row) {
  return row.unit === "concurrent" ? "requests at once" : `${row.unit.replace("_", " ")}${row.per === "total" ? " in total" : ` per ${row.per}`}`;
}
