// Tokens step by step, a layer for each name; what a step holds is read with the pointer or the arrow keys.
import { el } from "./dashboard_draw.js";
import { clock, exactly, mark, number } from "./dashboard_words.js";

const LAYERS = 6;
let step = null;

// Whether the step looked at is another one now.
export function look(to, steps) {
  const before = step;
  step = to === null ? null : Math.max(0, Math.min(steps - 1, to));
  return step !== before;
}

export const looked = () => step;

function roundUp(value) {
  const size = 10 ** Math.floor(Math.log10(Math.max(1, value)));
  return [1, 2, 4, 5, 10].map((each) => each * size).find((each) => each >= value);
}

function layered(rows, total) {
  const shown = rows.filter((row) => row.tokens).slice(0, LAYERS).map((row, index) => ({ ...row, layer: "c" + index }));
  const rest = total.series.map((sum, i) => sum - shown.reduce((part, row) => part + row.series[i], 0));
  if (rest.some((each) => each > 0)) shown.push({ name: "others", layer: "rest", series: rest, tokens: rest.reduce((a, b) => a + b, 0) });
  return shown;
}

export function chart(rows, f, what) {
  const { total, since, until: now, zone, covered_since: covered } = f;
  if (!total.tokens) return el("p", { class: "empty" }, "No tokens in this range.");
  const shown = layered(rows, total), steps = total.series.length, width = (now - since) / steps;
  const top = roundUp(Math.max(...total.series)), unknown = Math.floor((covered - since) / width);
  const drawn = [];
  if (unknown > 0) drawn.push(el("rect", { class: "unknown", fill: "url(#held)", width: unknown, height: 100 }));
  for (const y of [0.5, 50]) drawn.push(el("line", { class: "rule", x1: 0, x2: steps, y1: y, y2: y }));
  for (let i = 0; i < steps; i += 1) {
    let y = 100;
    for (const row of shown) {
      const height = (row.series[i] / top) * 100;
      if (height <= 0) continue;
      y -= height;
      drawn.push(el("rect", { class: row.layer, "data-k": row.layer + i, x: i + 0.08, y: y.toFixed(3), width: 0.84, height: height.toFixed(3) }));
    }
  }
  if (step !== null) drawn.push(el("rect", { class: "cursor", x: step, width: 1, height: 100 }));
  const from = step === null ? since : since + width * step, to = step === null ? now : from + width;
  const marks = [0, 0.25, 0.5, 0.75, 1].map((part) => el("span", {}, mark(since + (now - since) * part, zone, now - since)));
  return el("div", { class: "chart" },
    el("div", { class: "plot" },
      el("div", { class: "scale", "aria-hidden": "true" }, el("span", {}, number(top)), el("span", {}, number(top / 2)), el("span", {}, "0")),
      el("svg", {
        id: "plot", class: "layers", viewBox: `0 0 ${steps} 100`, preserveAspectRatio: "none", tabindex: 0, role: "slider", "data-steps": steps,
        "aria-label": "Step looked at; arrow keys move it, Escape shows the whole range", "aria-valuemin": 0, "aria-valuemax": steps - 1,
        "aria-valuenow": step ?? steps - 1,
        "aria-valuetext": step === null ? "whole range" : `${clock(from, zone)}: ${exactly(total.series[step])} tokens`,
      }, drawn),
      el("div", { class: "marks", "aria-hidden": "true" }, marks)),
    el("p", { class: "quiet" }, `${step === null ? "Whole range" : "Step"}: ${clock(from, zone)} to ${clock(to, zone)}, `, el("b", {}, exactly(step === null ? total.tokens : total.series[step])), " tokens"),
    el("ul", { class: "legend", "aria-label": `Tokens ${what}` }, shown.map((row) => el("li", { "data-k": row.layer },
      el("i", { class: row.layer, "aria-hidden": "true" }), el("span", { class: "name" }, row.name || "–"), el("b", {}, number(step === null ? row.tokens : row.series[step]))))));
}
