// Nodes, numbers and drawings. Text is only ever set as text: names come from callers.
export function el(name, attributes = {}, ...children) {
  const svg = ["svg", "rect", "title", "desc"].includes(name);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick") node.addEventListener("click", value);
    else if (value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export function number(value) {
  for (const [size, letter] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]]) {
    if (Math.abs(value) >= size) return (value / size).toFixed(Math.abs(value) < 10 * size ? 2 : Math.abs(value) < 100 * size ? 1 : 0) + letter;
  }
  return String(value);
}

export const share = (value) => (value * 100).toFixed(1) + "%";
export const seconds = (value) => (value === null ? "–" : value < 1 ? Math.round(value * 1000) + " ms" : value.toFixed(1) + " s");

export function span(total) {
  const s = Math.max(0, Math.round(total));
  if (s < 60) return s + " s";
  if (s < 3600) return Math.floor(s / 60) + " min";
  if (s < 86400) return Math.floor(s / 3600) + " h " + Math.floor((s % 3600) / 60) + " min";
  return Math.floor(s / 86400) + " d " + Math.floor((s % 86400) / 3600) + " h";
}

export function clock(at, zone) {
  return new Date(at * 1000).toLocaleString(undefined, { timeZone: zone, dateStyle: "medium", timeStyle: "medium" });
}

export function bar(used, held, limit, label) {
  const whole = Math.max(limit, 1);
  const first = Math.min(100, Math.max(0, (used / whole) * 100));
  const second = Math.min(100 - first, (held / whole) * 100);
  return el("svg", { class: "bar", viewBox: "0 0 100 8", preserveAspectRatio: "none", role: "img", "aria-label": label },
    el("rect", { class: "track", width: 100, height: 8 }),
    el("rect", { class: first + second >= 95 ? "used full" : first + second >= 80 ? "used near" : "used", width: first, height: 8 }),
    el("rect", { class: "held", x: first, width: second, height: 8 }));
}

export function chart(rows, since, until, zone) {
  if (!rows.some((row) => row.tokens)) return el("p", { class: "empty" }, "No tokens in this range.");
  const shown = rows.slice(0, 6), steps = shown[0].series.length;
  const most = Math.max(1, ...Array.from({ length: steps }, (_, i) => shown.reduce((sum, row) => sum + row.series[i], 0)));
  const svg = el("svg", { class: "chart", viewBox: `0 0 ${steps * 10} 100`, preserveAspectRatio: "none", role: "img", "aria-label": `Tokens over time, at most ${number(most)} a step; the table below has the figures` });
  for (let i = 0; i < steps; i += 1) {
    let y = 100;
    shown.forEach((row, index) => {
      const height = (row.series[i] / most) * 96;
      if (!height) return;
      y -= height;
      const at = since + ((until - since) / steps) * i;
      svg.append(el("rect", { class: "c" + index, x: i * 10 + 1, y, width: 8, height }, el("title", {}, `${row.name}: ${number(row.series[i])} tokens from ${clock(at, zone)}`)));
    });
  }
  const legend = el("ul", { class: "legend" }, ...shown.map((row, index) => el("li", {}, el("i", { class: "c" + index }), `${row.name} ${number(row.tokens)}`)));
  return el("div", {}, el("p", { class: "quiet" }, `most in one step: ${number(most)}`), svg, legend);
}

const sorted = {};

// A table that keeps its order over live updates; a column is [title, cell, value to sort by].
export function table(name, columns, rows, empty) {
  if (!rows.length) return el("p", { class: "empty" }, empty);
  const order = sorted[name];
  const listed = order ? [...rows].sort((a, b) => {
    const [x, y] = [columns[order.column][2](a), columns[order.column][2](b)];
    return (x < y ? -1 : x > y ? 1 : 0) * order.way;
  }) : rows;
  const head = columns.map(([title, , value], column) => {
    const mine = order && order.column === column;
    if (!value) return el("th", { scope: "col" }, title);
    return el("th", { scope: "col", "aria-sort": mine ? (order.way > 0 ? "ascending" : "descending") : "none" },
      el("button", { type: "button", onclick: () => {
        sorted[name] = { column, way: mine ? -order.way : -1 };
        document.dispatchEvent(new Event("redraw"));
      } }, title + (mine ? (order.way > 0 ? " ↑" : " ↓") : "")));
  });
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": name }, el("table", {}, el("thead", {}, el("tr", {}, ...head)),
    el("tbody", {}, ...listed.map((row) => el("tr", {}, ...columns.map(([, cell]) => el("td", {}, cell(row))))))));
}
