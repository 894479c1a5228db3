// The dashboard: asks the server how it is, once a second while anybody looks, and shows that.
//
// Nothing is written into the page but as text. Whatever a name, a version or a reason says, it stays text.
"use strict";

// All that is read of the answers, in JSON. A key that may be absent or null ends with "?"; "*" is any key. What is
// not named here does not reach the rest of the script, and an answer without what is named is told, not guessed at.
// Tests hold this beside real answers.
const STATUS = /* status */ {
  "server": {
    "version": "text", "pid": "number", "uptime_s": "number", "ready": "boolean", "not_ready?": "text",
    "http": ["text"], "admin": ["text"]
  },
  "capacity": {
    "total": { "num_cpus?": "number", "num_gpus?": "number", "memory_bytes?": "number", "custom?": { "*": "number" } },
    "free": { "num_cpus?": "number", "num_gpus?": "number", "memory_bytes?": "number", "custom?": { "*": "number" } }
  },
  "endpoints": [{
    "name": "text", "route?": "text", "methods": ["text"], "traffic": { "*": "number" }, "requests": "number",
    "last_minute": [{ "backend": "text", "requests": "number" }],
    "shadow": [{ "backend": "text", "proportion": "number" }]
  }],
  "backends": [{
    "name": "text", "state": "text", "reason?": "text", "last_error?": "text", "for_s": "number",
    "config": { "version?": "text", "num_replicas": "number" },
    "replica_counts": { "starting": "number", "running": "number", "draining": "number" },
    "counts": {
      "requests": "number", "errors": "number", "refused": "number", "restarts": "number", "running": "number",
      "queued": "number",
      "queuing": { "le_ms": ["number"], "counts": ["number"] },
      "processing": { "le_ms": ["number"], "counts": ["number"] }
    }
  }],
  "gpus?": [{
    "device": "number", "name": "text", "driver": "text", "software": "boolean", "lost": "number",
    "health": { "open": "boolean", "suspect": "boolean", "watchdog": "number", "abandoned": "number" },
    "busy_share": "number", "free_share": "number", "memory_bytes": "number", "memory_used_bytes": "number",
    "free_memory_bytes": "number",
    "leases": [{
      "backend": "text", "replica": "number", "share_asked": "number", "share_got": "number",
      "share_overall": "number", "device_time_s": "number", "queue_wait_s": "number", "jobs": "number",
      "slices": "number", "outstanding": "number", "memory_used_bytes": "number", "memory_quota_bytes": "number"
    }]
  }],
  "unsaved?": "text",
  "deploy?": { "state": "text", "done": "number", "all": "number", "waits_for?": "text" },
  "last_deploy?": { "error?": { "detail": "text" } }
} /* status */;

const REPLICAS = /* replicas */ {
  "total": "number",
  "replicas": [{
    "id": { "slot": "number", "generation": "number" }, "release": "number", "version?": "text", "state": "text",
    "reason?": "text", "for_s": "number", "load": "number", "failed_checks": "number"
  }]
} /* replicas */;

/** How long until the next question after an answer, and after none. */
const EVERY_MS = 1000;
const AGAIN_MS = 2000;
/** After how long without an answer there is none. */
const PATIENCE_MS = 3000;
/** Over how long rates and latencies are, in seconds. */
const WINDOW_S = 5;
/** Points of a line. */
const POINTS_MAX = 60;
/** Rows of a table, and leases of a GPU that get a row each. */
const ROWS_MAX = 200;
const LEASES_EACH_MAX = 40;
const REPLICAS_MAX = 100;

/* What is read */

const KINDS = { text: "string", number: "number", boolean: "boolean" };

/** What a shape names of a value, and nothing else. */
function read(shape, value, place = "the answer") {
  const wrong = () => new Error(`this page does not know ${place} as it came; load it again`);
  if (typeof shape === "string") {
    if (typeof value !== KINDS[shape]) throw wrong();
    return value;
  }
  if (Array.isArray(shape)) {
    if (!Array.isArray(value)) throw wrong();
    return value.map((each, i) => read(shape[0], each, `${place}[${i}]`));
  }
  if (typeof value !== "object" || value === null) throw wrong();
  if ("*" in shape) return new Map(Object.entries(value).map(([key, each]) => [key, read(shape["*"], each, place)]));
  const found = {};
  for (const [key, inner] of Object.entries(shape)) {
    const name = key.replace("?", "");
    const absent = key !== name && (value[name] === undefined || value[name] === null);
    found[name] = absent ? null : read(inner, value[name], `${place}.${name}`);
  }
  return found;
}

/** One document of the server. */
async function ask(path, shape, signal) {
  const answer = await fetch(path, { cache: "no-store", redirect: "error", signal }).catch((error) => {
    throw error.name === "AbortError" ? error : new Error("no connection");
  });
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    throw new Error(`${answer.status} ${typeof problem.detail === "string" ? problem.detail : answer.statusText}`);
  }
  return read(shape, await answer.json());
}

/* What has changed: the answers of the last seconds */

let seen = [];
const lines = new Map();

/** Takes an answer in; those of a process before, or of long ago, are forgotten. */
function remember(status) {
  const last = seen.at(-1);
  const at = status.server.uptime_s;
  if (last && (last.pid !== status.server.pid || at < last.at)) seen = [];
  seen = seen.filter((one) => one.at >= at - WINDOW_S);
  if (seen.length === 0) lines.clear();
  const before = seen.at(-1);
  const named = (list) => new Map(list.map((one) => [one.name, one]));
  const now = { pid: status.server.pid, at, backends: named(status.backends), endpoints: named(status.endpoints) };
  seen.push(now);
  for (const name of lines.keys()) if (!now.backends.has(name)) lines.delete(name);
  for (const [name, backend] of now.backends) {
    const rate = growth(backend.counts.requests, before?.backends.get(name)?.counts.requests, at - (before?.at ?? at));
    if (rate === null) continue;
    const line = lines.get(name) ?? [];
    line.push(rate);
    lines.set(name, line.slice(-POINTS_MAX));
  }
}

/** How fast a count has grown; null when that cannot be told yet. */
function growth(now, then, seconds) {
  return then === undefined || now < then || seconds <= 0 ? null : (now - then) / seconds;
}

/** How fast what `count` reads of each of these has grown in the last seconds. */
function rate(kind, name, count) {
  const [first, last] = [seen[0], seen.at(-1)];
  const [then, now] = [first[kind].get(name), last[kind].get(name)];
  return then && now ? growth(count(now), count(then), last.at - first.at) : null;
}

/** The sum of those that are known; null when none is. */
function sum(values) {
  const known = values.filter((value) => value !== null);
  return known.length === 0 ? null : known.reduce((all, value) => all + value, 0);
}

/** The latency in milliseconds that a part of the calls of the last seconds did not pass; null without any. */
function quantile(part, name, latencies) {
  const [then, now] = [seen[0].backends.get(name), seen.at(-1).backends.get(name)];
  if (!then || !now) return null;
  const { le_ms: bounds, counts } = latencies(now);
  const before = latencies(then).counts;
  const grown = counts.map((count, i) => Math.max(0, count - before[i]));
  const all = grown.reduce((total, count) => total + count, 0);
  if (all === 0) return null;
  let below = 0;
  for (const [i, count] of grown.entries()) {
    if (below + count >= part * all && count > 0) {
      // Within a bucket they are taken to be spread evenly; the last one has no end.
      if (i >= bounds.length) return Infinity;
      const from = i === 0 ? 0 : bounds[i - 1];
      return from + (bounds[i] - from) * ((part * all - below) / count);
    }
    below += count;
  }
  return null;
}

/* How it is said */

const NONE = "–";
const digits = [0, 1, 2, 3].map((most) => new Intl.NumberFormat("en", { maximumFractionDigits: most }));

/** Three digits or so. */
function figure(value) {
  const size = Math.abs(value);
  return digits[size >= 100 || size === 0 ? 0 : size >= 10 ? 1 : size >= 0.1 ? 2 : 3].format(value);
}

const whole = (value) => digits[0].format(value);
const perSecond = (value) => (value === null ? NONE : `${figure(value)} /s`);
const percent = (share) => `${digits[1].format(share * 100)} %`;

function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (value >= 1024 && at < units.length - 1) [value, at] = [value / 1024, at + 1];
  return `${figure(value)} ${units[at]}`;
}

function latency(ms, most) {
  if (ms === null) return NONE;
  if (ms === Infinity) return `> ${time(most / 1000)}`;
  return ms >= 1000 ? time(ms / 1000) : `${figure(ms)} ms`;
}

/** A time of work: `3.2 s`, `12.5 min`. */
function time(seconds) {
  if (seconds < 1) return `${figure(seconds * 1000)} ms`;
  if (seconds < 120) return `${figure(seconds)} s`;
  return seconds < 7200 ? `${figure(seconds / 60)} min` : `${figure(seconds / 3600)} h`;
}

/** A time that goes on: `40 s`, `3 h 12 min`. */
function since(seconds) {
  const [s, min, h] = [seconds, seconds / 60, seconds / 3600].map(Math.floor);
  if (s < 120) return `${s} s`;
  if (min < 120) return `${min} min`;
  return h < 48 ? `${h} h ${min % 60} min` : `${Math.floor(h / 24)} d ${h % 24} h`;
}

const said = (word) => word.charAt(0) + word.slice(1).toLowerCase().replaceAll("_", " ");
const among = (shares) => [...shares].map(([name, share]) => `${name} ${percent(share)}`).join(" · ");

/* How it is shown */

const byId = (id) => document.getElementById(id);

/** Only what differs is touched, so that a selection stays. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function make(tag, kind, text) {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  if (text) element.textContent = text;
  return element;
}

/** The child that an element has for this, made when it is first needed. */
function part(element, kind, how = () => make("span", kind)) {
  return element.getElementsByClassName(kind)[0] ?? element.appendChild(how());
}

/** Keeps a child for each item, by key and in order. */
function keep(parent, items, key, create, fill) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let next = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let child = old.get(name);
    if (!child) {
      child = create(item);
      child.dataset.key = name;
    }
    old.delete(name);
    if (child === next) next = next.nextElementSibling;
    else parent.insertBefore(child, next);
    fill(child, item);
  }
  for (const child of old.values()) child.remove();
}

/** A bar that is filled so far; the mark is where it should be. Its figures stand beside it as text. */
function bar(element, share, mark) {
  const at = (value) => `${Math.min(1, Math.max(0, value)) * 100}%`;
  const track = part(element, "bar");
  track.setAttribute("aria-hidden", "true");
  part(track, "fill").style.width = at(share);
  if (mark !== undefined) part(track, "mark").style.left = at(mark);
}

/** A line through the rates of the last minute. */
function line(element, values) {
  const space = "http://www.w3.org/2000/svg";
  const svg = part(element, "line", () => {
    const made = document.createElementNS(space, "svg");
    made.setAttribute("class", "line");
    made.setAttribute("viewBox", "0 0 100 20");
    made.setAttribute("preserveAspectRatio", "none");
    made.setAttribute("aria-hidden", "true");
    made.appendChild(document.createElementNS(space, "polyline"));
    return made;
  });
  const most = Math.max(...values, 1e-9);
  const from = POINTS_MAX - values.length;
  const point = (value, i) => `${((from + i) / (POINTS_MAX - 1)) * 100},${19 - (value / most) * 18}`;
  svg.firstChild.setAttribute("points", values.map(point).join(" "));
}

/** The figure of a cell that has something beside it. */
const beside = (cell, text) => say(part(cell, "figure"), text);

const KIND_OF_STATE = {
  RUNNING: "good", UNHEALTHY: "bad", AWAITING_CODE: "idle", OK: "good", HELD_UP: "bad", CLOSED: "bad"
};

function state(cell, word) {
  const badge = part(cell, "state");
  const kind = `state ${KIND_OF_STATE[word] ?? "busy"}`;
  if (badge.className !== kind) badge.className = kind;
  say(badge, said(word));
}

/** Heads and values, as a list of terms. */
function facts(list, pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== "");
  const create = ([head]) => {
    const pair = make("div");
    pair.append(make("dt", "", head), make("dd"));
    return pair;
  };
  keep(list, shown, ([head]) => head, create, (pair, [, value, more]) => {
    if (more) more(pair.lastChild, value);
    else say(pair.lastChild, value);
  });
}

/**
 * A table in a card. A column has a `head`, a `kind` of cell and `text`, or `draw` for a cell that is more than text.
 * The roles are said, since a narrow screen shows the rows as blocks.
 */
class Table {
  constructor(place, caption, columns, key, none) {
    [this.columns, this.key] = [columns, key];
    this.frame = place.appendChild(make("div", "table"));
    const table = this.frame.appendChild(make("table"));
    table.setAttribute("role", "table");
    this.frame.setAttribute("role", "region");
    this.caption = table.appendChild(make("caption"));
    this.name(caption);
    const head = table.appendChild(make("thead"));
    head.setAttribute("role", "rowgroup");
    const row = head.appendChild(make("tr"));
    row.setAttribute("role", "row");
    for (const column of columns) {
      const cell = row.appendChild(make("th", column.kind, column.head));
      cell.scope = "col";
      cell.setAttribute("role", "columnheader");
      if (column.title) cell.title = column.title;
    }
    this.body = table.appendChild(make("tbody"));
    this.body.setAttribute("role", "rowgroup");
    this.none = place.appendChild(make("p", "empty", none));
    this.more = place.appendChild(make("p", "more"));
  }

  /** What it is a table of. */
  name(caption) {
    say(this.caption, caption);
    this.frame.setAttribute("aria-label", caption);
  }

  /** Shows the first of these rows, and says how many there are. */
  show(rows, all = rows.length) {
    const shown = rows.slice(0, ROWS_MAX);
    this.frame.hidden = rows.length === 0;
    this.none.hidden = rows.length > 0;
    this.more.hidden = all === shown.length;
    say(this.more, `${whole(shown.length)} of ${whole(all)} are shown.`);
    // Whoever has only a keyboard can scroll what does not fit.
    this.frame.tabIndex = this.frame.scrollWidth > this.frame.clientWidth ? 0 : -1;
    keep(this.body, shown, this.key, () => this.row(), (row, item) => {
      for (const [i, column] of this.columns.entries()) {
        if (column.draw) column.draw(row.children[i], item);
        else say(row.children[i], column.text(item));
      }
    });
  }

  row() {
    const row = make("tr");
    row.setAttribute("role", "row");
    for (const [i, column] of this.columns.entries()) {
      const cell = row.appendChild(make(i === 0 ? "th" : "td", column.kind));
      if (i === 0) cell.scope = "row";
      cell.setAttribute("role", i === 0 ? "rowheader" : "cell");
      cell.dataset.head = column.head;
    }
    return row;
  }
}

const column = (head, text, kind = "number", title = "") => ({ head, text, kind, title });
const drawn = (head, draw, kind = "number", title = "") => ({ head, draw, kind, title });

/** A count that should be 0. */
function alarm(head, text, isBad, title) {
  return drawn(head, (cell, item) => {
    say(cell, text(item));
    cell.classList.toggle("alarm", isBad(item));
    cell.classList.toggle("calm", !isBad(item));
  }, "number", title);
}

/* Endpoints */

const routed = (endpoint) => rate("endpoints", endpoint.name, (one) => one.requests);

const endpoints = new Table(card("endpoints"), "Endpoints", [
  column("Endpoint", (e) => e.name, "name"),
  column("Route", (e) => e.route ?? "", "text"),
  column("Methods", (e) => (e.route === null ? "" : e.methods.join(" ")), "short"),
  column("Traffic", (e) => among(e.traffic), "text", "How requests are to be split"),
  column("Last minute", (e) => went(e.last_minute), "text", "Where requests really went"),
  column("Copies to", (e) => among(e.shadow.map((rule) => [rule.backend, rule.proportion])), "text", "Shadows"),
  column("Requests", (e) => perSecond(routed(e))),
], (e) => e.name, "No endpoints.");

function went(lately) {
  const all = sum(lately.map((one) => one.requests)) ?? 0;
  return all === 0 ? "" : among(lately.map((one) => [one.backend, one.requests / all]));
}

/* Backends and their replicas */

let opened = null;

const backends = new Table(card("backends"), "Backends", [
  drawn("Backend", (cell, b) => {
    const button = part(cell, "open", () => opener(b.name));
    button.setAttribute("aria-expanded", String(opened === b.name));
  }, "name"),
  drawn("State", (cell, b) => state(cell, b.state), "short"),
  column("For", (b) => since(b.for_s), "number short"),
  column("Version", (b) => b.config.version ?? "", "text"),
  column("Replicas", (b) => replicasOf(b), "short"),
  drawn("Requests", (cell, b) => {
    beside(cell, perSecond(rate("backends", b.name, (one) => one.counts.requests)));
    line(cell, lines.get(b.name) ?? []);
  }),
  alarm("Errors", (b) => perSecond(errorsOf(b)), (b) => errorsOf(b) > 0),
  alarm("Refused", (b) => perSecond(refusedOf(b)), (b) => refusedOf(b) > 0, "Calls above what it admits"),
  column("p50", (b) => handled(0.5, b), "number", "Half of the calls were handled within"),
  column("p99", (b) => handled(0.99, b), "number", "Of 100 calls 99 were handled within"),
  column("Wait p99", (b) => waited(0.99, b), "number", "Of 100 calls 99 waited in the queue for at most"),
  column("Queued", (b) => whole(b.counts.queued)),
  column("In work", (b) => whole(b.counts.running)),
  column("Restarts", (b) => whole(b.counts.restarts), "number", "Of replicas, after a failure"),
  column("Why", (b) => b.reason ?? b.last_error ?? "", "text why"),
], (b) => b.name, "No backends.");

const errorsOf = (b) => rate("backends", b.name, (one) => one.counts.errors);
const refusedOf = (b) => rate("backends", b.name, (one) => one.counts.refused);
const handled = (share, b) =>
  latency(quantile(share, b.name, (one) => one.counts.processing), b.counts.processing.le_ms.at(-1));
const waited = (share, b) =>
  latency(quantile(share, b.name, (one) => one.counts.queuing), b.counts.queuing.le_ms.at(-1));

function replicasOf({ replica_counts: { starting, running, draining }, config }) {
  const others = [[starting, "starting"], [draining, "draining"]].filter(([count]) => count > 0);
  const rest = others.map(([count, word]) => ` + ${whole(count)} ${word}`).join("");
  return `${whole(running)} of ${whole(config.num_replicas)}${rest}`;
}

function opener(name) {
  const button = make("button", "open", name);
  button.type = "button";
  button.setAttribute("aria-controls", "replicas-section");
  button.addEventListener("click", () => open(opened === name ? null : name));
  return button;
}

const replicas = new Table(card("replicas"), "Replicas", [
  column("Slot", (r) => whole(r.id.slot), "name"),
  column("Generation", (r) => whole(r.id.generation)),
  drawn("State", (cell, r) => state(cell, r.state), "short"),
  column("For", (r) => since(r.for_s)),
  column("Release", (r) => whole(r.release)),
  column("Version", (r) => r.version ?? "", "text"),
  column("Calls", (r) => whole(r.load), "number", "That run or wait there"),
  alarm("Failed checks", (r) => whole(r.failed_checks), (r) => r.failed_checks > 0),
  column("Why", (r) => r.reason ?? "", "text why"),
], (r) => `${r.id.slot} ${r.id.generation}`, "No replicas.");

/** Shows the replicas of this backend, or of none. */
function open(name) {
  opened = name;
  byId("replicas-section").hidden = true;
  for (const button of document.getElementsByClassName("open")) {
    button.setAttribute("aria-expanded", String(button.textContent === name));
  }
  if (name !== null) poll();
}

function showReplicas(name, { total, replicas: rows }) {
  if (name !== opened) return;
  say(byId("replicas-head"), `Replicas of ${name}`);
  replicas.name(`Replicas of ${name}`);
  // Those that take no calls come first.
  replicas.show(rows, total);
  byId("replicas-section").hidden = false;
}

/* GPUs */

const gpuTables = new WeakMap();

const LEASES = [
  column("Backend", (l) => l.backend, "name"),
  column("Replica", (l) => (l.replicas === 1 ? whole(l.replica) : `${whole(l.replicas)} of them`)),
  column("Asked", (l) => percent(l.share_asked), "number", "The share of the device's time that was promised"),
  drawn("Got", (cell, l) => {
    beside(cell, percent(l.share_got));
    bar(cell, l.share_got, l.share_asked);
  }, "number wide", "Of the last whole second; the mark is what was promised"),
  column("Overall", (l) => percent(l.share_overall), "number", "Of all its time so far"),
  column("Device time", (l) => time(l.device_time_s)),
  column("Queue wait", (l) => time(l.queue_wait_s), "number", "Of all jobs together, until their first slice"),
  column("Jobs", (l) => whole(l.jobs)),
  column("Slices", (l) => whole(l.slices)),
  column("Outstanding", (l) => whole(l.outstanding), "number", "Jobs that wait or run"),
  drawn("Memory", (cell, l) => {
    beside(cell, `${bytes(l.memory_used_bytes)} of ${bytes(l.memory_quota_bytes)}`);
    bar(cell, l.memory_quota_bytes > 0 ? l.memory_used_bytes / l.memory_quota_bytes : 0);
  }, "number wide", "That it holds, of what it may hold"),
];

/** A row for each lease or, when they are many, for each backend. */
function leaseRows(leases) {
  const each = leases.map((lease) => ({ ...lease, replicas: 1 }));
  if (each.length <= LEASES_EACH_MAX) return each;
  const rows = new Map();
  for (const lease of each) {
    const row = rows.get(lease.backend);
    if (!row) rows.set(lease.backend, lease);
    else for (const [key, value] of Object.entries(lease)) if (key !== "backend") row[key] += value;
  }
  return [...rows.values()];
}

/** How a device is, in one word. */
const condition = ({ open, suspect }) => (open ? (suspect ? "HELD_UP" : "OK") : "CLOSED");

const times = (count) => (count === 0 ? "never" : count === 1 ? "once" : `${whole(count)} times`);

function showGpus(gpus) {
  byId("gpus-section").hidden = gpus.length === 0;
  const create = () => {
    const frame = make("article", "card");
    frame.append(make("h3"), make("dl", "facts"));
    gpuTables.set(frame, new Table(frame, "Shares", LEASES, (l) => `${l.backend} ${l.replica}`, "Nobody has a share of it."));
    return frame;
  };
  keep(byId("gpus"), gpus, (gpu) => gpu.device, create, (frame, gpu) => {
    const name = `GPU ${gpu.device}: ${gpu.name}${gpu.software ? " (software)" : ""}`;
    say(frame.firstChild, name);
    facts(frame.children[1], [
      ["State", condition(gpu.health), state],
      ["Driver", gpu.driver],
      ["Busy", gpu.busy_share, (dd, share) => {
        beside(dd, percent(share));
        bar(dd, share);
      }],
      ["Free share", percent(gpu.free_share)],
      ["Memory", `${bytes(gpu.memory_used_bytes)} of ${bytes(gpu.memory_bytes)}, ${bytes(gpu.free_memory_bytes)} free for leases`],
      ["Lost", times(gpu.lost)],
      ["Lost to a job without an end", gpu.health.watchdog === 0 ? null : times(gpu.health.watchdog)],
      ["Lost and not gone yet", gpu.health.abandoned === 0 ? null : whole(gpu.health.abandoned)],
    ]);
    const table = gpuTables.get(frame);
    table.name(`Shares of ${name}`);
    table.show(leaseRows(gpu.leases));
  });
}

/* All of it */

function card(id) {
  return byId(id).appendChild(make("div", "card"));
}

/** What there is, what is used of it, and a bar; nothing when it is not counted. */
function used(head, total, free, how) {
  if (total === null || free === null || total === 0) return [head, null];
  return [head, total - free, (dd, value) => {
    beside(dd, how(value));
    say(part(dd, "of"), ` of ${how(total)} in use`);
    bar(dd, value / total);
  }];
}

function tiles({ capacity: { total, free }, backends: all, endpoints: ways, gpus }) {
  const errors = sum(all.map(errorsOf));
  const count = (read) => sum(all.map((one) => read(one.counts))) ?? 0;
  const custom = [...(total.custom ?? [])].map(([name, amount]) =>
    used(name, amount, free.custom?.get(name) ?? null, figure));
  facts(byId("tiles"), [
    ["Requests", perSecond(sum(ways.map(routed)))],
    ["Errors", errors, (dd, value) => {
      say(dd, perSecond(value));
      dd.classList.toggle("alarm", value > 0);
    }],
    ["Calls in work", whole(count((one) => one.running))],
    ["Calls queued", whole(count((one) => one.queued))],
    used("CPUs", total.num_cpus, free.num_cpus, figure),
    used("GPUs", total.num_gpus ?? (gpus ?? []).length, free.num_gpus, figure),
    used("Memory", total.memory_bytes, free.memory_bytes, bytes),
    ...custom,
  ]);
}

function notes({ deploy, last_deploy: last, unsaved }) {
  const all = [];
  if (deploy) {
    const waits = deploy.waits_for ? `: ${deploy.waits_for}` : "";
    all.push(["busy", `A deploy is under way: ${said(deploy.state).toLowerCase()}, ${deploy.done} of ${deploy.all} steps done${waits}`]);
  }
  if (last?.error) all.push(["bad", `The last deploy failed, and was taken back: ${last.error.detail}`]);
  if (unsaved) all.push(["bad", `The state directory does not hold what is wanted now: ${unsaved}`]);
  byId("notes").hidden = all.length === 0;
  const keyed = all.map(([kind, text], i) => ({ kind, text, key: `${kind} ${i}` }));
  const create = ({ kind }) => make("li", `note ${kind}`);
  keep(byId("notes"), keyed, ({ key }) => key, create, (item, { text }) => say(item, text));
}

const inTrouble = (one) => one.state !== "RUNNING";

function show(status) {
  const { server } = status;
  const ready = byId("ready");
  ready.className = `state ${server.ready ? "good" : "bad"}`;
  say(ready, server.ready ? "Ready" : `Not ready: ${server.not_ready ?? ""}`);
  facts(byId("server"), [
    ["Version", server.version],
    ["Up", since(server.uptime_s)],
    ["Requests on", server.http.join(", ")],
    ["Steered on", server.admin.join(", ")],
  ]);
  tiles(status);
  notes(status);
  endpoints.show(status.endpoints);
  // The order stays, unless there are so many that some are left out: not those then that are in trouble.
  const many = status.backends.length > ROWS_MAX;
  backends.show(many ? [...status.backends].sort((a, b) => inTrouble(b) - inTrouble(a)) : status.backends);
  if (opened !== null && !status.backends.some((one) => one.name === opened)) open(null);
  showGpus(status.gpus ?? []);
}

/* Asking, again and again */

let timer = 0;
let asking = null;
let answered = null;
let version = null;

async function poll() {
  clearTimeout(timer);
  asking?.abort();
  asking = null;
  if (document.hidden) return;
  const mine = (asking = new AbortController());
  const patience = setTimeout(() => mine.abort(), PATIENCE_MS);
  let wait = EVERY_MS;
  try {
    const status = await ask("api/serve/status?replicas=false", STATUS, mine.signal);
    const name = opened;
    const path = name && `api/serve/backends/${encodeURIComponent(name)}/replicas?max=${REPLICAS_MAX}`;
    const rows = path && (await ask(path, REPLICAS, mine.signal).catch(() => null));
    if (mine !== asking) return;
    if (version !== null && version !== status.server.version) return location.reload();
    version = status.server.version;
    remember(status);
    show(status);
    if (rows) showReplicas(name, rows);
    fresh();
  } catch (error) {
    if (mine !== asking) return;
    wait = AGAIN_MS;
    stale(error);
  } finally {
    clearTimeout(patience);
    if (mine === asking) timer = setTimeout(poll, wait);
  }
}

function fresh() {
  answered = new Date();
  document.body.classList.remove("stale");
  document.title = "greenroom";
  byId("gone").hidden = true;
  say(byId("gone"), "");
  say(byId("asked"), `As of ${answered.toLocaleTimeString("en-GB")}.`);
}

/** What is shown is not how it is any more, and must not look so. */
function stale(error) {
  document.body.classList.add("stale");
  document.title = "✕ greenroom";
  const why = error.name === "AbortError" ? "it takes too long" : error.message;
  const since = answered ? `since ${answered.toLocaleTimeString("en-GB")}; what is shown below is of then` : "yet";
  say(byId("gone"), `The server does not answer ${since} (${why}).`);
  byId("gone").hidden = false;
}

byId("replicas-close").addEventListener("click", () => {
  const name = opened;
  open(null);
  for (const button of document.getElementsByClassName("open")) if (button.textContent === name) button.focus();
});

document.addEventListener("visibilitychange", () => {
  // Until the next answer what is shown is old.
  document.body.classList.add("stale");
  poll();
});

poll();
