// The view of those who run the service: models, actors, and what they do now.

import { get } from "/page/api.js";
import { dollars, el, percent, seconds, svg } from "/page/dom.js";

const INTERVAL = 2000; // milliseconds between two looks

export class OperationsView {
  constructor(element, askForKey) {
    this.element = element;
    this.askForKey = askForKey;
    this.timer = null;
    this.isShown = false;
  }

  show() {
    if (this.isShown) return;
    this.isShown = true;
    this.look();
  }

  hide() {
    this.isShown = false;
    clearTimeout(this.timer);
  }

  async look() {
    try {
      if (document.visibilityState === "visible") this.draw(await get("/v1/status"));
    } catch (error) {
      this.element.replaceChildren(el("p", { class: "error" }, error.status ? error.message : "the service cannot be reached"));
      if (error.status === 401) {
        this.askForKey();
        this.isShown = false;
        return;
      }
    }
    if (this.isShown) this.timer = setTimeout(() => this.look(), INTERVAL);
  }

  draw(status) {
    const scrolled = window.scrollY;
    const up = Math.max(0, status.now - status.started_at);
    const head = el("ul", { class: "figures" },
      el("li", {}, "requests under way ", el("b", {}, String(status.running))),
      el("li", {}, "up ", el("b", {}, duration(up))),
      status.draining ? el("li", { class: "degraded" }, "draining") : null,
      status.tree ? el("li", {}, "dead letters ", el("b", {}, String(deadLetters(status.tree)))) : null);
    this.element.replaceChildren(
      head,
      el("h2", {}, "Models"), el("div", { class: "scroll" }, models(status.models)),
      ...(status.limits ? [] : [el("p", { class: "error" }, "The limits of keys cannot be read now.")]),
      ...(status.limits?.length ? [el("h2", {}, `Budgets of the key ${status.key}`), el("div", { class: "scroll" }, budgets(status.limits))] : []),
      ...(status.tree ? [el("h2", {}, "Actors"), el("ul", { class: "tree root" }, node(status.tree))] : []),
    );
    window.scrollTo({ top: scrolled });
  }
}

function duration(up) {
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const [unit, size] = units.find(([, each]) => up >= each) ?? units[3];
  return `${Math.floor(up / size)} ${unit}`;
}

function models(all) {
  const names = ["model", "state", "requests", "failures", "retries", "p50", "p95", "tokens", "cost", "cache", "calls", "left a minute", "circuit", "latencies"];
  const rows = Object.entries(all).map(([name, each]) => el("tr", {},
    el("th", { scope: "row" }, name),
    el("td", { class: each.status }, each.status),
    ...[
      each.requests, each.failures, each.retries, seconds(each.response_time_p50), seconds(each.response_time_p95),
      `${each.input_tokens} / ${each.output_tokens}`, dollars(each.cost),
      percent(each.cache_hits + each.cache_misses ? each.cache_hits / (each.cache_hits + each.cache_misses) : null),
      calls(each.limits), leftAMinute(each.limits),
    ].map((value) => el("td", { class: "number" }, String(value))),
    el("td", { class: each.circuit === "closed" ? "" : "degraded" }, (each.circuit ?? "–").replace("_", "-")),
    el("td", {}, plot(name, each.response_times))));
  return el("table", { class: "data" },
    el("thead", {}, el("tr", {}, ...names.map((name) => el("th", { scope: "col" }, name)))), el("tbody", {}, ...rows));
}

function calls(limits) {
  if (!limits) return "–";
  const paused = limits.paused_for > 0 ? `, paused for ${seconds(limits.paused_for)}` : "";
  return `${limits.in_flight}, ${limits.waiting} wait${paused}`;
}

// Requests and tokens that the limits of a model leave; most models have none.
function leftAMinute(limits) {
  const left = [[limits?.requests_available, "requests"], [limits?.tokens_available, "tokens"]];
  return left.filter(([amount]) => amount != null).map(([amount, unit]) => `${Math.floor(amount)} ${unit}`).join(", ") || "–";
}

const UNITS = {
  dollars_per_day: ["dollars a day", dollars], dollars_per_month: ["dollars a month", dollars],
  requests_per_minute: ["requests a minute", String], tokens_per_minute: ["tokens a minute", String],
};

function budgets(limits) {
  const rows = limits.map((each) => {
    const [words, shown] = UNITS[each.name];
    const used = Math.max(0, each.most - each.left);
    const share = Math.min(1, used / each.most);
    const amount = (value) => (shown === String ? String(Math.floor(value)) : shown(value));
    return el("tr", {},
      el("th", { scope: "row" }, words),
      ...[amount(used), amount(each.left), amount(each.most)].map((value) => el("td", { class: "number" }, value)),
      el("td", {}, svg("svg", { class: "plot meter", viewBox: "0 0 100 10", preserveAspectRatio: "none", role: "img", "aria-label": `${percent(share)} used` },
        svg("rect", { width: 100, height: 10 }), svg("rect", { class: share < 0.8 ? "used" : "used much", width: share * 100, height: 10 }))),
      el("td", {}, each.left < each.most ? `all of it in ${duration(each.reset)}` : "–"));
  });
  const names = ["limit", "used or reserved", "left", "of", "share", "there again"];
  return el("table", { class: "data" },
    el("thead", {}, el("tr", {}, ...names.map((name) => el("th", { scope: "col" }, name)))), el("tbody", {}, ...rows));
}

/** Return the name of an actor; in that of a model, as it stands in paths, some signs are escaped. */
function nameOf(actor) {
  try {
    return decodeURIComponent(actor.name);
  } catch {
    return actor.name;
  }
}

function plot(name, values) {
  if (values.length < 2) return "–";
  const top = Math.max(...values) || 1;
  const points = values.map((value, index) => `${(index / (values.length - 1)) * 100},${30 - (value / top) * 28}`);
  const label = `Latencies of ${name}: the newest ${values.length}, up to ${top.toFixed(2)} s`;
  return svg("svg", { class: "plot", viewBox: "0 0 100 30", preserveAspectRatio: "none", role: "img", "aria-label": label },
    svg("polyline", { points: points.join(" ") }));
}

function node(each) {
  const state = { running: "up", starting: "degraded", restarting: "degraded", stopping: "degraded" }[each.state] ?? "down";
  const parts = [];
  if (each.kind === "actor") {
    parts.push(`${each.handled} handled`);
    if (each.queued) parts.push(`${each.queued} queued`);
    if (each.in_flight) parts.push(`${each.in_flight} in flight`);
    if (each.failed) parts.push(`${each.failed} failed`);
    if (each.dead_lettered) parts.push(`${each.dead_lettered} dead letters`);
  } else {
    parts.push(each.strategy);
  }
  if (each.restarts) parts.push(`${each.restarts} restart${each.restarts === 1 ? "" : "s"}`);
  const children = (each.children ?? []).map(node);
  return el("li", {}, el("b", {}, nameOf(each)), " ", el("span", { class: state }, each.state), el("span", { class: "quiet" }, ` ${parts.join(", ")}`),
    children.length ? el("ul", { class: "tree" }, ...children) : null);
}

function deadLetters(each) {
  return (each.dead_lettered ?? 0) + (each.children ?? []).reduce((sum, child) => sum + deadLetters(child), 0);
}
