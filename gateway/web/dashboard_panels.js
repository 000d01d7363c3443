// What each panel says of the figures.
import { bar, el, table } from "./dashboard_draw.js";
import { clock, exactly, many, number, outcome, reason, seconds, share, short, signed, span, unit } from "./dashboard_words.js";

const state = () => new URLSearchParams(location.search);

// An address of this page with some of its filters changed.
export function address(changes) {
  const next = state();
  for (const [name, value] of Object.entries(changes)) value ? next.set(name, value) : next.delete(name);
  return "?" + next;
}

const link = (name, value, text = value) => (value ? el("a", { href: address({ [name]: value }) }, text) : "–");
const ago = (at, f) => el("time", { title: `${clock(at, f.zone)} ${f.zone}` }, span(f.now - at) + " ago");
const figure = (value) => el("span", { title: exactly(value) }, number(value));
const chip = (text, level) => el("span", { class: "chip " + level }, text);

function tile(name, value, more, level = "") {
  return el("li", { class: "tile " + level, "data-k": name }, el("span", { class: "name" }, name), el("strong", {}, value), el("span", { class: "quiet" }, more));
}

export function tiles(f) {
  const { store } = f.health, { total, workers } = f;
  const sum = (rows, of) => rows.reduce((all, row) => all + of(row), 0);
  const bills = sum(f.counted, (row) => row.bills), equal = sum(f.counted, (row) => row.equal);
  const asked = sum(f.upstreams, (row) => row.requests), failed = sum(f.upstreams, (row) => row.broken + row.declined);
  const slowest = f.upstreams.map((row) => row.p95_s).filter((each) => each !== null);
  const missing = workers.expected_here - workers.alive_here, { spent, near } = f.budget_levels;
  const sick = f.workers.listed.filter((each) => each.state !== "alive").length;
  return [
    tile("Tokens", number(total.tokens), `${number(total.input)} in, ${number(total.output)} out`),
    tile("Requests", number(total.requests), `${many(workers.holds, "request")} open now`),
    tile("Refused", number(total.refused), total.requests ? `${share(total.refused / total.requests)} of requests` : "no requests", total.refused ? "warn" : "good"),
    tile("Budgets spent", number(spent), near ? `${number(near)} more nearly full` : "none nearly full", spent ? "bad" : near ? "warn" : "good"),
    tile("Counts equal bills", bills ? share(equal / bills) : "–", bills ? `${many(bills, "bill")} compared` : "no bill yet"),
    tile("Upstream errors", asked ? share(failed / asked) : "–", slowest.length ? `slowest p95 ${seconds(Math.max(...slowest))}` : "no answer yet", failed ? "warn" : asked ? "good" : ""),
    tile("Store", store.lost ? "Lost" : store.late ? "Slow" : "OK", store.kind, store.lost ? "bad" : store.late ? "warn" : "good"),
    tile("Workers", `${workers.alive} alive`, missing > 0 ? `${missing} missing here` : sick ? `${sick} late or gone` : "all well", missing > 0 || sick ? "warn" : "good"),
  ];
}

export function heading(f) {
  const key = state().get("key"), tag = state().get("tag"), model = state().get("model");
  const of = [key && `Key ${key}`, tag && tag.replace(":", " "), model].filter(Boolean);
  const facts = [];
  if (key && f.key) {
    facts.push(el("p", { class: "facts" }, chip(f.key.status, f.key.status === "active" ? "good" : "bad"),
      Object.entries(f.key.tags).map(([name, value]) => el("span", {}, name + " ", link("tag", `${name}:${value}`, value))),
      el("span", {}, f.key.expires ? `expires ${f.key.expires}` : "does not expire")));
  } else if (key) facts.push(el("p", { class: "facts" }, chip("not configured", "warn"), "No key of this name is known now; its ledger lines remain."));
  return [key && el("nav", { "aria-label": "Breadcrumb" }, el("a", { href: address({ key: "" }) }, "All keys"), el("span", { "aria-hidden": "true" }, " / ")),
    el("h1", { tabindex: -1 }, of.join(", ") || "All traffic"), ...facts];
}

function level(row) {
  const size = row.limit + row.granted, over = row.used - size, spent = row.remaining === 0;
  if (row.mode === "shadow") return spent ? ["near", "Would refuse"] : ["", ""];
  if (row.unit !== "concurrent" && over > 0) return ["full", `Over by ${number(over)}`];
  if (spent) return ["full", row.unit === "concurrent" ? "Full" : row.used < size ? "All held" : "Spent"];
  return (row.used + row.held) / size >= 0.8 ? ["near", "Nearly full"] : ["", ""];
}

function budget(row, f) {
  const size = row.limit + row.granted, [kind, word] = level(row), resets = row.resets_at && Date.parse(row.resets_at) / 1000;
  const said = `${exactly(row.used)} used, ${exactly(row.held)} held, ${exactly(row.remaining)} left of ${exactly(size)} ${unit(row)}`;
  const scope = row.scope === "all" ? "shared" : row.scope.startsWith("key=") ? link("key", row.scope.slice(4)) : row.scope;
  const when = row.sliding ? "rolls on" : resets ? el("span", { title: `${clock(resets, f.zone)} ${f.zone}` }, `resets in ${span(resets - f.now)}`) : row.unit === "concurrent" ? "" : "never resets";
  return el("li", { class: "budget " + kind, "data-k": [row.budget, row.scope, row.unit, row.per, row.sliding].join("|") },
    el("div", { class: "line" }, el("span", {}, el("b", {}, row.budget), " ", el("span", { class: "quiet" }, scope)),
      el("span", { class: "chips" }, row.mode === "shadow" && chip("Shadow", ""), row.granted ? chip(`${signed(row.granted, short)} granted`, "") : null, word && chip(word, kind === "full" ? "bad" : "warn"))),
    el("div", { class: "line quiet" }, el("span", {}, `${short(size)} ${unit(row)}`), el("span", {}, when)),
    el("div", { role: "meter", "aria-label": `${row.budget} ${row.scope} ${unit(row)}`, "aria-valuemin": 0, "aria-valuemax": Math.max(1, size), "aria-valuenow": Math.min(Math.max(1, size), row.used + row.held), "aria-valuetext": said, title: said },
      bar(row.used, row.held, size, kind)),
    el("div", { class: "line quiet" }, el("span", {}, el("b", {}, number(row.used)), " used", row.held ? `, ${number(row.held)} held` : "", ", ", el("b", {}, number(row.remaining)), " left"),
      el("b", {}, share((row.used + row.held) / Math.max(1, size)))));
}

export function budgets(f) {
  const hidden = f.budget_count - f.budgets.length, all = state().get("show") === "all";
  const empty = state().get("find") ? "No budget goes by this name." : !f.configured_budgets ? "No budgets are configured: nothing is refused." : "No budget has been used in its window yet.";
  if (!f.budgets.length) return el("p", { class: "empty" }, empty);
  return el("div", {}, el("ul", { class: "budgets" }, f.budgets.map((row) => budget(row, f))),
    el("p", { class: "quiet" }, el("span", { class: "key", "aria-hidden": "true" }, bar(1, 0, 1)), "used ", el("span", { class: "key", "aria-hidden": "true" }, bar(0, 1, 1)), "held for requests that run. ",
      hidden > 0 ? `The fullest ${f.budgets.length} of ${number(f.budget_count)}. ` : null,
      hidden > 0 && !all ? el("a", { href: address({ show: "all" }) }, `Show ${Math.min(f.budget_most, f.budget_count)}`) : null,
      all ? el("a", { href: address({ show: "" }) }, "Show fewer") : null));
}

function ranked(name, title, by, rows, count, f, empty) {
  const most = Math.max(1, ...rows.map((row) => row.tokens));
  return el("div", {}, table(name, [
    [title, (row) => link(by, row.name), (row) => row.name, "name"],
    ["Tokens", (row) => el("div", { class: "hot" }, bar(row.tokens, 0, most), figure(row.tokens)), (row) => row.tokens, "bars"],
    ["Requests", (row) => figure(row.requests), (row) => row.requests, "n"],
    ["Refused", (row) => figure(row.refused), (row) => row.refused, "n"],
    ["Last", (row) => ago(row.last_at, f), (row) => row.last_at, "n extra"],
  ], rows, (row) => row.name || "-", empty), count > rows.length && el("p", { class: "quiet" }, `The first ${rows.length} of ${number(count)}; the filter above finds the others.`));
}

export const keys = (f) => ranked("Hottest keys", "Key", "key", f.keys, f.key_count, f, `No requests here yet. Point an SDK at ${location.origin}/v1 to see some.`);
export const models = (f) => ranked("Hottest models", "Model", "model", f.models, f.model_count, f, "No requests here yet.");

export const refusals = (f) => table("Refused", [
  ["Why", (row) => el("div", {}, el("b", {}, reason(row.reason, row.limit)), el("br"), el("span", { class: "quiet" }, `budget ${row.budget}`)), (row) => row.reason, "name"],
  ["Who", (row) => el("div", {}, link("key", row.key_id), el("br"), el("span", { class: "quiet" }, row.model || "–")), (row) => row.key_id, "name"],
  ["Times", (row) => figure(row.count), (row) => row.count, "n"],
  ["Last", (row) => ago(row.last_at, f), (row) => row.last_at, "n"],
], f.refusals, (row) => [row.key_id, row.model, row.budget, row.reason, row.limit].join("|"), "Nobody was refused in this range.");

export const counted = (f) => table("Our counts beside the bills", [
  ["Model", (row) => link("model", row.model), (row) => row.model, "name"],
  ["Label", (row) => row.accuracy, (row) => row.accuracy],
  ["Bills", (row) => figure(row.bills), (row) => row.bills, "n"],
  ["Equal", (row) => share(row.equal / row.bills), (row) => row.equal / row.bills, "n"],
  ["Drift", (row) => chip(signed(row.drift, share), Math.abs(row.drift) >= 0.02 ? "warn" : ""), (row) => row.drift, "n"],
  ["Furthest off", (row) => (row.low || row.high ? `${signed(Math.abs(row.low) > Math.abs(row.high) ? row.low : row.high, exactly)} tokens` : "none"), (row) => Math.max(-row.low, row.high), "n extra"],
], f.counted, (row) => row.model + row.accuracy, "No bill to compare with in this range.");

export const upstreams = (f) => table("Upstreams", [
  ["Upstream", (row) => row.upstream, (row) => row.upstream, "name"],
  ["Requests", (row) => figure(row.requests), (row) => row.requests, "n"],
  ["Failed", (row) => (row.broken ? chip(number(row.broken), "bad") : "0"), (row) => row.broken, "n"],
  ["Declined", (row) => (row.declined ? chip(number(row.declined), "warn") : "0"), (row) => row.declined, "n"],
  ["p50", (row) => seconds(row.p50_s), (row) => row.p50_s, "n"],
  ["p95", (row) => seconds(row.p95_s), (row) => row.p95_s, "n"],
  ["First byte", (row) => seconds(row.first_byte_s), (row) => row.first_byte_s, "n extra"],
  ["Last error", (row) => (row.failed_at === null ? "none" : ago(row.failed_at, f)), (row) => row.failed_at, "n extra"],
], f.upstreams, (row) => row.upstream, "No upstream was asked in this range.");

export const latest = (f) => table("Latest requests", [
  ["When", (row) => ago(row.at, f), (row) => row.at, "when"],
  ["Key", (row) => link("key", row.key), (row) => row.key, "name"],
  ["Model", (row) => link("model", row.model), (row) => row.model, "name"],
  ["Outcome", (row) => {
    const [word, kind] = outcome(row.outcome);
    return el("span", {}, kind ? chip(word, kind) : word, row.refused_by ? el("span", { class: "quiet" }, ` ${reason(row.refused_for, row.refused_limit)}, budget ${row.refused_by}`) : null);
  }, (row) => row.outcome],
  ["In", (row) => figure(row.input), (row) => row.input, "n"],
  ["Out", (row) => figure(row.output), (row) => row.output, "n"],
  ["Took", (row) => seconds(row.seconds), (row) => row.seconds, "n"],
  ["Request", (row) => el("code", {}, row.id), null, "extra"],
], f.latest, (row) => row.id + row.at, "No requests in this range.");

export function health(f) {
  const { store, config, version, started_at: started } = f.health, { workers } = f;
  const words = { alive: ["alive", "good"], late: ["late", "warn"], gone: ["gone", "bad"] };
  const oldest = workers.oldest_hold_s === null ? "" : `, the oldest for ${span(workers.oldest_hold_s)}`;
  return el("div", { class: "health" }, el("dl", {},
    el("dt", {}, "Store"), el("dd", {}, chip(store.lost ? "lost" : store.late ? "slow" : "answers", store.lost ? "bad" : store.late ? "warn" : "good"), ` ${store.kind}`),
    el("dt", {}, "Configuration"), el("dd", {}, chip(config.problems.length ? "bad file" : "in force", config.problems.length ? "bad" : "good"), ` ${config.file ?? "built in"}`),
    el("dt", {}, "Open requests"), el("dd", {}, `${number(workers.holds)}${oldest}${workers.detached ? `; ${number(workers.detached)} of them admissions` : ""}`),
    el("dt", {}, "This worker"), el("dd", {}, `version ${version}, up ${span(f.now - started)}`)),
  el("div", {}, table("Workers", [
    ["Worker", (row) => el("span", {}, `${row.host} `, el("span", { class: "quiet" }, `process ${row.pid}${row.asked ? ", answers you" : ""}`)), (row) => row.host + row.pid, "name"],
    ["State", (row) => chip(...words[row.state]), (row) => row.state],
    ["Seen", (row) => `${span(row.seen_s)} ago`, (row) => row.seen_s, "n"],
    ["Open", (row) => figure(row.holds), (row) => row.holds, "n"],
  ], workers.listed, (row) => `${row.host}:${row.pid}`, "No worker has given a sign of life yet."),
  workers.count > workers.listed.length && el("p", { class: "quiet" }, `${workers.listed.length} of ${number(workers.count)} workers.`)));
}

export function banners({ store, config }) {
  const found = [];
  if (store.lost) {
    found.push(el("div", { class: "banner", "data-k": "store" }, el("b", {}, "The store is lost."), ` ${store.lost} Figures are those read before; requests follow store.on_error: ${store.on_error}.`));
  }
  if (config.problems.length) {
    found.push(el("div", { class: "banner", "data-k": "config" }, el("b", {}, "The configuration file cannot be used."), ` The configuration from before stays in force. ${config.file} has:`,
      el("ul", {}, config.problems.map((each) => el("li", {}, each)))));
  }
  return found;
}
