// The page: what the service says once a second, shown.
import {setToken, hasToken} from "./api.js";
import {row} from "./batches.js";
import {Chart} from "./charts.js";
import {askForToken} from "./dialogs.js";
import {el, follow, mark, put, show} from "./dom.js";
import {update as updatePanels} from "./panels.js";
import {Stream} from "./stream.js";
import "./submit.js";
import {brief, clock, count, counted, number, rate, share, size, visible} from "./text.js";

const by = (id) => document.getElementById(id);
const MOMENTS = 300;
const STATES = {
  ready: ["\u2713 ready", "good"], starting: ["\u25cb starting", "quiet"], draining: ["\u2016 draining", "pause"],
};
const ORDER = ["running", "queued", "paused", "failed", "cancelled", "done"];
const ACTIVE = new Set(["running", "queued", "paused"]);

let moments = [];

const throughput = new Chart({
  title: "Throughput", write: rate, tick: number, least: 10,
  lines: [{name: "jobs", tone: "run", of: (moment) => moment.rate}],
});
const flight = new Chart({
  title: "In flight", write: number, least: 4, bound: (moment) => moment.concurrency ?? null,
  lines: [{name: "requests", tone: "good", of: (moment) => moment.in_flight}],
});
const latency = new Chart({
  title: "Latency", write: brief, least: 0.01,
  lines: [
    {name: "p50", tone: "run", of: (moment) => moment.latency.p50},
    {name: "p90", tone: "pause", of: (moment) => moment.latency.p90},
    {name: "p99", tone: "warn", of: (moment) => moment.latency.p99},
  ],
});
const received = new Chart({
  title: "Received", base: 1024, least: 1024,
  write: (value) => `${size(value)}/s`, tick: (value) => (value ? size(value) : "0"),
  lines: [{name: "bytes", tone: "run", of: (moment) => moment.wire_rate}],
});
by("charts").append(throughput.node, flight.node, latency.node, received.node);

function charts(snapshot) {
  const {at, rate: jobs, in_flight, wire_rate, cpu, latency: late, concurrency} = snapshot;
  if (moments.at(-1)?.at !== at) {
    moments = [...moments, {at, rate: jobs, in_flight, wire_rate, cpu, latency: late, concurrency}].slice(-MOMENTS);
  }
  const total = Object.values(snapshot.outcomes).reduce((sum, each) => sum + each, 0);
  throughput.update(moments, rate(jobs), `${counted(total, "job")} ended`);
  flight.update(moments, count(in_flight), `at most ${count(concurrency)}`);
  latency.update(moments, brief(late.p50), late.p50 === null ? "" : `p90 ${brief(late.p90)}, p99 ${brief(late.p99)}`);
  received.update(moments, `${size(wire_rate)}/s`, "before decoding");
}

function ordered(batches) {
  const place = (batch) => (ACTIVE.has(batch.state) ? ORDER.indexOf(batch.state) : ORDER.length);
  return [...batches].sort((one, other) => place(one) - place(other) || (one.created_at < other.created_at ? 1 : -1));
}

/** Say how a batch is submitted from a shell. */
function command() {
  const token = hasToken() ? '-H "Authorization: Bearer $TOKEN" ' : "";
  const url = new URL("v1/batches", document.baseURI);
  return `curl ${token}-H "Content-Type: text/plain" --data-binary @urls.txt \\\n  ${url}`;
}

function batches(items, states) {
  const total = Object.values(states).reduce((sum, each) => sum + each, 0);
  const active = [...ACTIVE].reduce((sum, name) => sum + (states[name] ?? 0), 0);
  const part = total > items.length ? `; these are ${count(items.length)} of them` : "";
  put(by("batches-note"), items.length ? `${count(active)} active, ${count(total - active)} ended${part}` : "");
  show(by("nothing"), items.length === 0);
  put(by("curl"), command());
  show(by("rows"), items.length > 0);
  follow(by("rows"), ordered(items), (batch) => batch.id, row, by("batches"));
}

function troubles(items) {
  show(by("trouble"), items.length > 0);
  aloud(items.length ? `${counted(items.length, "thing")} of the service need attention` : "");
  follow(by("trouble").querySelector("ul"), items.map((text, index) => ({text, index})), (item) => item.index, () => {
    const node = el("li");
    return {node, update: ({text}) => put(node, visible(text))};
  });
}

/** Have a screen reader say something, once. */
function aloud(text) {
  put(by("aloud"), text);
}

function state(text, tone) {
  put(by("state"), text);
  mark(by("state"), "data-tone", tone);
}

function snapshot(found) {
  state(...STATES[found.state]);
  put(by("about"), `${visible(found.version)}, up ${clock(found.uptime)}`);
  put(by("vitals"), `CPU ${share(found.cpu)} \u00b7 ${size(found.memory)} \u00b7 loop lag ${brief(found.loop_lag)}`);
  const running = found.batches.filter((batch) => batch.state === "running").length;
  document.title = running ? `(${running}) fetcher` : "fetcher";
  charts(found);
  batches(found.batches, found.states);
  troubles(found.trouble);
  updatePanels(found);
}

const lost = by("lost");
let countdown = null;

function waiting(refused, seconds) {
  const why = refused === null ? "The connection to the service is lost" : refused.message.replace(/\.$/, "");
  const until = Date.now() + seconds * 1000;
  const say = () => {
    const left = Math.ceil((until - Date.now()) / 1000);
    put(by("countdown"), `Trying again${left > 1 ? ` in ${left} s` : ""}.`);
  };
  put(lost.querySelector("span"), `${why}; what is shown is old.`);
  aloud(why);
  clearInterval(countdown);
  say();
  countdown = setInterval(say, 1000);
  state("\u2715 disconnected", "bad");
  show(lost, true);
  mark(document.body, "data-stale", "");
}

const stream = new Stream({
  open: () => {
    clearInterval(countdown);
    show(lost, false);
    mark(document.body, "data-stale", null);
  },
  history: (found) => {
    moments = found.moments;
  },
  snapshot,
  lost: waiting,
  token: async (refused) => {
    const wrong = hasToken() ? refused.message : null;
    setToken(null);
    await askForToken(wrong);
  },
});

lost.querySelector("button").addEventListener("click", () => stream.hurry());
addEventListener("online", () => stream.hurry());
stream.run();
