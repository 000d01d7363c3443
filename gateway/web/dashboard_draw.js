// Nodes, and putting new ones in the place of old ones. Text is only ever set as text: names come from callers.
const SVG = new Set(["svg", "rect", "line", "title"]);

export function el(name, attributes = {}, ...children) {
  const node = SVG.has(name) ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

// What stays the same keeps its node, so that focus, scrolling, selected text and half-done transitions survive.
export function put(place, ...fresh) {
  const focused = document.activeElement;
  replace(place, fresh.flat().filter(Boolean).map((each) => (each instanceof Node ? each : document.createTextNode(each))));
  if (focused !== document.activeElement && focused.isConnected && focused !== document.body) focused.focus({ preventScroll: true });
}

function replace(parent, fresh) {
  const keyed = new Map([...parent.children].filter((each) => each.dataset.k).map((each) => [each.dataset.k, each]));
  let at = parent.firstChild;
  for (const node of fresh) {
    const key = node.dataset?.k;
    const same = key ? keyed.get(key) : at && !at.dataset?.k ? at : null;
    if (!same || same.nodeName !== node.nodeName) {
      parent.insertBefore(node, at);
      continue;
    }
    if (same === at) at = at.nextSibling;
    else parent.insertBefore(same, at);
    if (same.nodeType === Node.TEXT_NODE) {
      if (same.data !== node.data) same.data = node.data;
      continue;
    }
    for (const { name } of [...same.attributes]) if (!node.hasAttribute(name)) same.removeAttribute(name);
    for (const { name, value } of node.attributes) if (same.getAttribute(name) !== value) same.setAttribute(name, value);
    replace(same, [...node.childNodes]);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

// Used is solid, held is hatched, what remains is empty: no colour is needed to tell them apart.
export function bar(used, held, limit, level = "") {
  const size = Math.max(limit, 1), first = Math.min(100, (Math.max(0, used) / size) * 100);
  const second = Math.min(100 - first, (Math.max(0, held) / size) * 100);
  return el("svg", { class: "bar " + level, "aria-hidden": "true" },
    el("rect", { class: "track", width: "100%", height: "100%", rx: 3 }),
    el("rect", { class: "used", width: first.toFixed(2) + "%", height: "100%", rx: 3 }),
    el("rect", { class: "held", fill: "url(#held)", x: first.toFixed(2) + "%", width: second.toFixed(2) + "%", height: "100%" }));
}

const sorted = {};

export function sortBy(name, column) {
  sorted[name] = { column, way: sorted[name]?.column === column ? -sorted[name].way : -1 };
}

// A column is [title, cell, value to sort by, class]. Rows are told apart by `key`.
export function table(name, columns, rows, key, empty) {
  if (!rows.length) return el("p", { class: "empty" }, empty);
  const order = sorted[name];
  const listed = order ? [...rows].sort((a, b) => {
    const [x, y] = [a, b].map((row) => columns[order.column][2](row) ?? "");
    return (x < y ? -1 : x > y ? 1 : 0) * order.way;
  }) : rows;
  const head = columns.map(([title, , value, type], column) => {
    const mine = order?.column === column;
    const text = value ? el("button", { type: "button", "data-sort": name, "data-column": column }, title, el("span", { "aria-hidden": "true" }, mine ? (order.way > 0 ? " ↑" : " ↓") : "")) : title;
    return el("th", { scope: "col", class: type, "aria-sort": mine ? (order.way > 0 ? "ascending" : "descending") : null }, text);
  });
  return el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": name }, el("table", {}, el("thead", {}, el("tr", {}, head)),
    el("tbody", {}, listed.map((row) => el("tr", { "data-k": key(row) }, columns.map(([, cell, , type]) => el("td", { class: type }, cell(row))))))));
}
