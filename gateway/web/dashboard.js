// The page: its state is its address, its figures come as events.
import { chart, look, looked } from "./dashboard_chart.js";
import { el, put, sortBy } from "./dashboard_draw.js";
import * as panels from "./dashboard_panels.js";
import { clock, span, timeOfDay } from "./dashboard_words.js";

const QUIET_MS = 5000;
const $ = (id) => document.getElementById(id);
const inputs = { range: $("range"), key: $("key"), tag: $("tag"), model: $("model"), find: $("find") };
let figures = null, source = null, heard = performance.now(), retry = 0;

const state = () => new URLSearchParams(location.search);

function go(to, { replacing = false } = {}) {
  history[replacing ? "replaceState" : "pushState"](null, "", location.pathname + (to === "?" ? "" : to));
  look(null);
  listen();
}

function listen() {
  clearTimeout(retry);
  source?.close();
  for (const [name, input] of Object.entries(inputs)) {
    if (document.activeElement !== input || name !== "find") input.value = state().get(name) ?? (name === "range" ? "1h" : "");
  }
  $("clear").hidden = !["key", "tag", "model", "find"].some((name) => state().has(name));
  const mine = (source = new EventSource("dashboard/stream" + location.search));
  mine.onmessage = (event) => {
    heard = performance.now();
    figures = JSON.parse(event.data) ?? figures;
    draw();
  };
  mine.onerror = async () => {
    if (mine !== source) return;
    if (mine.readyState === EventSource.CLOSED) retry = setTimeout(listen, 2000);
    const answer = await fetch("dashboard/session").catch(() => null);
    if (answer?.ok && !(await answer.json()).open) location.reload();
  };
}

function tellHowFresh() {
  const silent = performance.now() - heard > QUIET_MS, f = figures;
  document.body.classList.toggle("stale", silent);
  const [text, level] = document.hidden ? ["Paused", ""]
    : silent ? ["Disconnected", "bad"]
      : !f || f.age_s === null ? ["Waiting for the store", "warn"]
        : f.age_s > 15 || f.health.store.lost ? [`Figures are ${span(f.age_s)} old`, "warn"] : [`Live ${timeOfDay(f.now, f.zone)}`, "good"];
  $("live").className = level;
  // Read out when the state changes, not every second.
  $("live").setAttribute("aria-live", level === "good" && $("live").dataset.level === "good" ? "off" : "polite");
  $("live").dataset.level = level;
  put($("live"), text);
  const found = f ? panels.banners(f.health) : [];
  if (silent) {
    found.unshift(el("div", { class: "banner", "data-k": "silent" }, el("b", {}, "The gateway is not heard."),
      f ? ` These figures are of ${clock(f.now, f.zone)}. Connecting again.` : " Connecting again."));
  }
  put($("banners"), found);
}

function draw() {
  tellHowFresh();
  const f = figures;
  if (!f) return;
  const by = state().get("by") ?? (state().get("key") ? "models" : "keys");
  put($("title"), panels.heading(f));
  document.title = `${$("title").querySelector("h1").textContent} · Tollgate`;
  put($("tiles"), panels.tiles(f));
  for (const name of ["budgets", "keys", "models", "refusals", "counted", "upstreams", "latest", "health"]) put($(name), panels[name](f));
  $("p-keys").hidden = state().has("key");
  $("p-models").hidden = state().has("model");
  put($("by"), ["keys", "models"].map((each) => el("a", { href: panels.address({ by: each }), "aria-current": each === by ? "true" : null }, `by ${each.slice(0, -1)}`)));
  put($("chart"), chart(f[by], f, `by ${by.slice(0, -1)}`));
  const partly = f.covered_since > f.since;
  put($("foot"), `Times in ${f.zone}. `, partly ? el("b", {}, `Figures are of the latest 30,000 requests, since ${clock(f.covered_since, f.zone)}; a shorter range is whole.`) : "");
}

// What was typed may be a part of one name only.
async function resolved(name, typed) {
  if (!typed) return "";
  const found = await names(name, typed);
  return found.includes(typed) || found.length !== 1 ? typed : found[0];
}

async function names(of, text) {
  const answer = await fetch(`dashboard/names?${new URLSearchParams({ of, q: text })}`).catch(() => null);
  return answer?.ok ? (await answer.json()).values : [];
}

for (const name of ["key", "tag", "model"]) {
  const input = inputs[name], list = $(name + "-names");
  const suggest = async () => {
    const typed = input.value, found = await names(name, typed);
    if (input.value === typed) put(list, found.map((value) => el("option", { value, "data-k": value })));
  };
  const take = async () => {
    const value = await resolved(name, input.value.trim());
    if (value !== (state().get(name) ?? "")) go(panels.address({ [name]: value }));
    else input.value = value;
  };
  input.addEventListener("focus", suggest);
  input.addEventListener("input", (event) => {
    const chosen = !event.inputType || event.inputType === "insertReplacementText";
    if (chosen && [...list.children].some((each) => each.value === input.value)) take();
    else suggest();
  });
  input.addEventListener("change", take);
}

let typing = 0;
inputs.find.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => go(panels.address({ find: inputs.find.value.trim() }), { replacing: true }), 250);
});
inputs.range.addEventListener("change", () => go(panels.address({ range: inputs.range.value })));
$("filters").addEventListener("submit", (event) => event.preventDefault());

document.addEventListener("click", (event) => {
  const sort = event.target.closest("[data-sort]");
  if (sort) {
    sortBy(sort.dataset.sort, Number(sort.dataset.column));
    draw();
  }
  const link = event.target.closest('a[href^="?"]');
  if (!link || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  const drills = !link.closest(".head, #budgets > div > p");
  go(link.getAttribute("href"));
  if (drills) {
    scrollTo(0, 0);
    $("main").focus({ preventScroll: true });
  }
});

function lookAt(step, plot) {
  if (figures && look(step, Number(plot.dataset.steps))) draw();
}

$("chart").addEventListener("pointermove", (event) => {
  const plot = event.target.closest("#plot");
  if (!plot) return;
  const { left, width } = plot.getBoundingClientRect();
  lookAt(Math.floor(((event.clientX - left) / width) * Number(plot.dataset.steps)), plot);
});
$("chart").addEventListener("pointerleave", () => $("plot") && lookAt(null, $("plot")));
$("chart").addEventListener("keydown", (event) => {
  const plot = event.target.closest("#plot"), last = plot && Number(plot.dataset.steps) - 1, at = looked() ?? last + 1;
  const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last, Escape: null }[event.key];
  if (!plot || to === undefined) return;
  event.preventDefault();
  lookAt(to, plot);
});

$("logout").addEventListener("click", async () => {
  source.close();
  await fetch("dashboard/logout", { method: "POST" }).catch(() => null);
  location.assign(location.pathname);
});
addEventListener("popstate", listen);
// A page nobody sees asks for nothing.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) source.close();
  else heard = performance.now(), listen();
  tellHowFresh();
});
setInterval(tellHowFresh, 1000);
listen();
