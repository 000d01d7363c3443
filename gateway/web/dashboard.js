// The page: its state is its address, its figures come as events.
import { bar, chart, clock, el, number, seconds, share, span, table } from "./dashboard_draw.js";

const $ = (id) => document.getElementById(id);
const filters = { range: $("range"), key: $("f-key"), tag: $("f-tag"), model: $("f-model") };
let figures = null, source = null, heard = 0;

const state = () => new URLSearchParams(location.search);

function go(changes) {
  const next = state();
  for (const [name, value] of Object.entries(changes)) value ? next.set(name, value) : next.delete(name);
  history.pushState(null, "", location.pathname + (next.size ? "?" + next : ""));
  listen();
}

function listen() {
  if (source) source.close();
  filters.range.value = state().get("range") || "1h";
  source = new EventSource("dashboard/stream" + location.search);
  source.onmessage = (event) => {
    figures = JSON.parse(event.data);
    heard = Date.now();
    draw();
  };
  source.onerror = async () => {
    $("live").textContent = "Connecting again";
    $("live").className = "warn";
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 2000);
    const answer = await fetch("dashboard/session").catch(() => null);
    if (answer && answer.ok && !(await answer.json()).open) location.reload();
  };
}

function put(id, node) {
  const place = $(id), focused = place.contains(document.activeElement) ? document.activeElement.textContent : null;
  place.replaceChildren(node);
  if (focused !== null) [...place.querySelectorAll("button, a, [tabindex]")].find((each) => each.textContent === focused)?.focus();
}

const link = (name, value) => el("a", { href: "?" + new URLSearchParams([...state()].filter(([each]) => each !== name).concat([[name, value]])), onclick: (event) => {
  if (event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  go({ [name]: value });
} }, value || "–");

function options(select, values, chosen) {
  const wanted = ["", ...new Set(chosen ? [...values, chosen] : values)];
  if (document.activeElement !== select && [...select.options].map((each) => each.value).join("\n") !== wanted.join("\n")) {
    select.replaceChildren(...wanted.map((value) => el("option", { value }, value || "all")));
  }
  select.value = chosen || "";
}

function tile(name, value, more, level = "") {
  return el("div", { class: "tile " + level }, el("span", { class: "name" }, name), el("strong", {}, value), el("span", { class: "quiet" }, more));
}

function banners({ store, config }) {
  const found = [];
  if (store.lost) found.push(el("p", { class: "banner" }, el("b", {}, `The store is lost (on_error: ${store.on_error}). `), store.lost));
  if (config.problems.length) {
    found.push(el("div", { class: "banner" }, el("b", {}, `${config.file} cannot be used; the configuration from before stays in force.`),
      el("ul", {}, ...config.problems.map((each) => el("li", {}, each)))));
  }
  if ($("banners").textContent !== found.map((each) => each.textContent).join("")) $("banners").replaceChildren(...found);
}

function draw() {
  const f = figures, zone = f.zone, { store, config, version } = f.health;
  $("live").textContent = "Live";
  $("live").className = "good";
  banners(f.health);
  const bills = f.counted.reduce((sum, row) => sum + row.bills, 0), equal = f.counted.reduce((sum, row) => sum + row.equal, 0);
  const asked = f.upstreams.reduce((sum, row) => sum + row.requests, 0), failed = f.upstreams.reduce((sum, row) => sum + row.failed, 0);
  const slowest = f.upstreams.map((row) => row.p95_s).filter((each) => each !== null);
  const bad = f.budgets.filter((row) => row.remaining === 0).length;
  put("tiles", el("div", { class: "tiles" },
    tile("Tokens", number(f.total.tokens), `${number(f.total.input)} in, ${number(f.total.output)} out`),
    tile("Requests", number(f.total.requests), `${f.workers.holds} open now`),
    tile("Refused", number(f.total.refused), bad ? `${bad} budgets spent` : "no budget spent", f.total.refused ? "warn" : "good"),
    tile("Counts right", bills ? share(equal / bills) : "–", `${number(bills)} bills compared`),
    tile("Upstream errors", asked ? share(failed / asked) : "–", slowest.length ? `p95 ${seconds(Math.max(...slowest))}` : "no answers yet", failed ? "warn" : "good"),
    tile("Store", store.lost ? "Lost" : "OK", `${store.kind}, up ${span(f.now - f.health.started_at)}`, store.lost ? "bad" : "good"),
    tile("Configuration", config.problems.length ? "Bad file" : "OK", config.problems.length ? "the one before is in force" : `version ${version}`, config.problems.length ? "bad" : "good")));
  options(filters.key, f.choices.keys, state().get("key"));
  options(filters.tag, f.choices.tags, state().get("tag"));
  options(filters.model, f.choices.models, state().get("model"));
  $("drill").hidden = !state().get("key");
  if (state().get("key")) {
    put("drill", el("div", {}, el("h2", {}, `Key ${state().get("key")}`), el("p", {}, f.key
      ? `${f.key.status}; ${Object.entries(f.key.tags).map(([tag, value]) => `${tag}: ${value}`).join(", ") || "no tags"}; ${f.key.expires ? "expires " + f.key.expires : "does not expire"}`
      : "No key of this name is configured now."), el("button", { type: "button", onclick: () => go({ key: "" }) }, "Show all keys")));
  }
  put("budgets", table("Budgets", [
    ["Budget", (row) => el("span", {}, `${row.budget} `, el("small", {}, `${row.scope}${row.mode === "shadow" ? ", shadow" : ""}`)), (row) => row.budget + row.scope],
    ["Used and held", (row) => el("div", {}, bar(row.used, row.held, row.limit + row.granted, `${number(row.used)} used, ${number(row.held)} held of ${number(row.limit + row.granted)}`),
      el("small", {}, `${number(row.used)} + ${number(row.held)} held of ${number(row.limit + row.granted)} ${row.unit.replace("_", " ")}${row.unit === "concurrent" ? "" : " per " + row.per}`)), (row) => (row.used + row.held) / Math.max(1, row.limit + row.granted)],
    ["Left", (row) => number(row.remaining), (row) => row.remaining],
    ["Resets", (row) => row.resets_at ? el("span", { title: clock(Date.parse(row.resets_at) / 1000, zone) + " " + zone }, "in " + span(Date.parse(row.resets_at) / 1000 - f.now)) : "never", (row) => row.resets_at || "z"],
  ], f.budgets, f.configured_budgets ? "No budget has been used in its window yet." : "No budgets are configured."));
  const by = state().get("by") === "models" ? "models" : "keys";
  document.querySelectorAll("[data-by]").forEach((each) => each.setAttribute("aria-pressed", String(each.dataset.by === by)));
  put("chart", chart(f[by], f.since, f.now, zone));
  const most = Math.max(1, ...f.keys.map((row) => row.tokens));
  put("keys", table("Hottest keys", [
    ["Key", (row) => link("key", row.name), (row) => row.name],
    ["Tokens", (row) => el("div", {}, bar(row.tokens, 0, most * 1.3, `${number(row.tokens)} tokens`), el("small", {}, number(row.tokens))), (row) => row.tokens],
    ["Requests", (row) => number(row.requests), (row) => row.requests],
    ["Refused", (row) => number(row.refused), (row) => row.refused],
  ], f.keys, `No requests yet: set OPENAI_BASE_URL to ${location.origin}/v1`));
  put("refusals", table("Refused", [
    ["Key", (row) => link("key", row.key), (row) => row.key],
    ["Model", (row) => link("model", row.model), (row) => row.model],
    ["By budget", (row) => row.budget, (row) => row.budget],
    ["Times", (row) => number(row.count), (row) => row.count],
    ["Last", (row) => el("span", { title: clock(row.last_at, zone) }, span(f.now - row.last_at) + " ago"), (row) => row.last_at],
  ], f.refusals, "Nobody was refused in this range."));
  put("counted", table("Counts against bills", [
    ["Model", (row) => link("model", row.model), (row) => row.model],
    ["Label", (row) => row.accuracy, (row) => row.accuracy],
    ["Bills", (row) => number(row.bills), (row) => row.bills],
    ["Equal", (row) => share(row.equal / row.bills), (row) => row.equal / row.bills],
    ["Drift", (row) => (row.drift > 0 ? "+" : "") + share(row.drift), (row) => row.drift],
  ], f.counted, "No bill to compare with yet."));
  put("upstreams", table("Upstreams", [
    ["Upstream", (row) => row.name, (row) => row.name],
    ["Requests", (row) => number(row.requests), (row) => row.requests],
    ["Failed", (row) => number(row.failed), (row) => row.failed],
    ["p50", (row) => seconds(row.p50_s), (row) => row.p50_s],
    ["p95", (row) => seconds(row.p95_s), (row) => row.p95_s],
  ], f.upstreams, "No upstream was asked in this range."));
  put("latest", table("Latest requests", [
    ["When", (row) => el("span", { title: clock(row.at, zone) }, span(f.now - row.at) + " ago"), (row) => row.at],
    ["Key", (row) => link("key", row.key), (row) => row.key],
    ["Model", (row) => link("model", row.model), (row) => row.model],
    ["Outcome", (row) => row.outcome + (row.refused_by ? ` by ${row.refused_by}` : ""), (row) => row.outcome],
    ["In", (row) => number(row.input), (row) => row.input],
    ["Out", (row) => number(row.output), (row) => row.output],
    ["Took", (row) => seconds(row.seconds), (row) => row.seconds],
    ["Request", (row) => el("code", {}, row.id), null],
  ], f.latest, "No requests in this range."));
  $("foot").textContent = `Times in ${zone}; ${clock(f.now, zone)}.` + (f.more_budgets ? ` ${f.more_budgets} emptier counters are not shown.` : "")
    + (f.complete ? "" : ` Figures are of the latest 10,000 requests, since ${clock(f.reaches_back_to, zone)}: choose a shorter range for whole ones.`);
}

for (const [name, select] of Object.entries(filters)) select.addEventListener("change", () => go({ [name]: select.value }));
document.querySelectorAll("[data-by]").forEach((each) => each.addEventListener("click", () => go({ by: each.dataset.by })));
document.addEventListener("redraw", draw);
addEventListener("popstate", listen);
$("logout").addEventListener("click", async () => {
  source.close();
  await fetch("dashboard/logout", { method: "POST" });
  location.reload();
});
setInterval(() => {
  if (heard && Date.now() - heard > 30000) $("live").textContent = `Last heard ${span((Date.now() - heard) / 1000)} ago`;
}, 5000);
listen();
