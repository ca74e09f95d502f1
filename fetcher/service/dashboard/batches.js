// The batches: how far each is, what became of its jobs, and the buttons.
import {Refused, ask, hasToken} from "./api.js";
import {askForToken, say, sure} from "./dialogs.js";
import {el, follow, mark, put, show} from "./dom.js";
import {brief, clock, count, counted, date, rate, share, shortened, size, visible} from "./text.js";

const OUTCOMES = ["ok", "failed", "skipped"];
const SIGNS = {
  queued: "\u25cb", running: "\u25b6", paused: "\u2016", done: "\u2713", failed: "\u2715", cancelled: "\u2298",
};
const TONES = {queued: "quiet", running: "run", paused: "pause", done: "good", failed: "bad", cancelled: "quiet"};
const ACTIONS = {
  pause: {title: "Pause", states: ["running", "queued"]},
  resume: {title: "Resume", states: ["paused"]},
  cancel: {
    title: "Cancel", states: ["running", "queued", "paused"],
    sure: "Its jobs that have not ended will not be fetched. What it has fetched stays.",
  },
  retry: {title: "Retry", states: ["failed", "cancelled", "done"]},
  delete: {
    title: "Delete", states: ["failed", "cancelled", "done"],
    sure: "The batch goes, and its results with it. Files elsewhere stay.",
  },
};
const opened = new Set();
const busy = new Set();

/** Return the jobs that have ended. */
function ended(progress) {
  return OUTCOMES.reduce((sum, outcome) => sum + (progress.outcomes[outcome] ?? 0), 0);
}

/** Do what a button says, and say what came of it. `show` shows the batch anew, and as it is then if that is known. */
async function act(name, batch, show) {
  const {title, sure: text} = ACTIONS[name];
  const shown = visible(batch.id);
  if (busy.has(batch.id)) {
    return;
  }
  if (text !== undefined && !(await sure(`${title} ${shown}?`, text, `${title} it`))) {
    return;
  }
  busy.add(batch.id);
  show();
  const path = `v1/batches/${encodeURIComponent(batch.id)}`;
  let latest;
  try {
    const answer = await (name === "delete" ? ask("DELETE", path) : ask("POST", `${path}/${name}`));
    say(done(name, shown, answer, batch));
    // The next event comes in a second, which is long for somebody who has pressed a button.
    latest = answer?.id === batch.id ? answer : undefined;
  } catch (error) {
    if (error instanceof Refused && error.status === 401) {
      await askForToken(error.message);
    } else {
      say(`${title} ${shown}: ${error.message}`, "bad");
    }
  } finally {
    busy.delete(batch.id);
    show(latest);
  }
}

function done(name, shown, answer, batch) {
  const words = {pause: "is being paused", resume: "goes on", cancel: "is being cancelled", delete: "was deleted"};
  if (name === "retry") {
    const isNew = answer.id !== batch.id;
    return isNew ? `What failed of ${shown} is tried again as ${visible(answer.id)}` : `${shown} goes on`;
  }
  return `${shown} ${words[name]}`;
}

/** The row of a batch, which opens to show more of it. */
class Row {
  #batch;
  #detail = null;
  #name = el("button", {type: "button", className: "name"});
  #pill = el("span", {className: "pill"});
  #id = el("span", {className: "faint id"});
  #bar = new Bar();
  #numbers = el("dl", {className: "numbers"});
  #buttons = el("div", {className: "buttons"});
  #reason = el("p", {className: "reason", hidden: true});
  #more = el("div", {className: "detail", hidden: true});

  constructor(batch) {
    const title = el("div", {className: "title"}, this.#name, this.#pill, this.#id);
    this.node = el(
      "article", {className: "batch"}, title, this.#buttons, this.#bar.node, this.#numbers, this.#reason, this.#more,
    );
    this.#more.id = `batch-${encodeURIComponent(batch.id)}`;
    mark(this.#name, "aria-controls", this.#more.id);
    this.#name.addEventListener("click", () => this.#toggle());
  }

  update(batch) {
    this.#batch = batch;
    const name = visible(batch.name);
    put(this.#name, shortened(name, 60), name);
    put(this.#id, batch.id === batch.name ? "" : visible(batch.id));
    // Done, and yet not well: the same words as on the command line.
    const state = batch.exceeded ? "failed" : batch.state;
    put(this.#pill, `${SIGNS[state]} ${batch.state}${batch.exceeded ? ", too many failed" : ""}`);
    mark(this.#pill, "data-tone", TONES[state]);
    mark(this.node, "data-state", batch.state);
    this.#bar.update(batch);
    facts(this.#numbers, figures(batch));
    follow(this.#buttons, possible(batch), (action) => action, (action) => this.#button(action));
    put(this.#reason, batch.reason === null ? "" : visible(batch.reason));
    show(this.#reason, batch.reason !== null);
    this.#open(opened.has(batch.id));
  }

  #open(isOpen) {
    mark(this.#name, "aria-expanded", isOpen);
    show(this.#more, isOpen);
    if (isOpen) {
      (this.#detail ??= new Detail(this.#more)).update(this.#batch);
    }
  }

  #toggle() {
    if (!opened.delete(this.#batch.id)) {
      opened.add(this.#batch.id);
    }
    this.update(this.#batch);
  }

  #button(action) {
    const press = () => act(action, this.#batch, (batch = this.#batch) => this.update(batch));
    const node = el("button", {type: "button", className: "small", onclick: press}, ACTIONS[action].title);
    return {
      node,
      update: () => {
        mark(node, "aria-label", `${ACTIONS[action].title} ${visible(this.#batch.id)}`);
        // Not `disabled`, which would take the focus away.
        mark(node, "aria-disabled", busy.has(this.#batch.id) ? "true" : null);
      },
    };
  }
}

/** Make the row of a batch. */
export function row(batch) {
  return new Row(batch);
}

function possible(batch) {
  const hasFailures = (batch.progress.outcomes.failed ?? 0) > 0;
  const names = Object.keys(ACTIONS).filter((action) => ACTIONS[action].states.includes(batch.state));
  // Of what is done, there is nothing to be tried again but what has failed.
  return names.filter((action) => action !== "retry" || batch.state !== "done" || hasFailures);
}

/** Show [name, value] as a list of facts. */
function facts(list, items) {
  follow(list, items, ([name]) => name, ([name]) => {
    const value = el("dd");
    return {node: el("div", {}, el("dt", {}, name), value), update: ([, text, title]) => put(value, text, title ?? "")};
  });
}

function figures(batch) {
  const {progress} = batch;
  if (batch.state === "queued" && progress.jobs === 0) {
    return [];
  }
  const total = `${count(progress.jobs)}${progress.read_all ? "" : "+"}`;
  const items = [["Ended", `${count(ended(progress))} of ${total}`]];
  if (batch.state === "running") {
    items.push(["Rate", rate(progress.rate)], ["In flight", count(progress.in_flight)], ["ETA", clock(progress.eta)]);
  } else if (progress.elapsed > 0) {
    items.push(["Took", clock(progress.elapsed)], ["On average", rate(ended(progress) / progress.elapsed)]);
  }
  for (const outcome of OUTCOMES.slice(1)) {
    if (progress.outcomes[outcome]) {
      items.push([outcome[0].toUpperCase() + outcome.slice(1), count(progress.outcomes[outcome])]);
    }
  }
  return items;
}

/** How far a batch is, and with what outcomes. */
class Bar {
  #parts = new Map(OUTCOMES.map((outcome) => [outcome, el("span", {className: "part"})]));
  #text = el("span", {className: "percent"});

  constructor() {
    this.bar = el("div", {className: "bar", role: "progressbar", ariaValueMin: "0", ariaValueMax: "100"});
    for (const [outcome, part] of this.#parts) {
      part.dataset.outcome = outcome;
      this.bar.append(part);
    }
    this.node = el("div", {className: "progress"}, this.bar, this.#text);
  }

  update({id, state, progress}) {
    const total = Math.max(1, progress.jobs);
    const whole = progress.jobs === 0 ? Number(state === "done") : ended(progress) / total;
    for (const [outcome, part] of this.#parts) {
      part.style.width = `${(100 * (progress.outcomes[outcome] ?? 0)) / total}%`;
    }
    // Until the sources are read nobody knows what the whole is.
    const unread = {running: "reading", queued: "waiting"}[state] ?? "\u2013";
    const percent = progress.read_all || state === "done" ? share(whole) : unread;
    put(this.#text, percent);
    mark(this.bar, "aria-label", `Progress of ${visible(id)}`);
    mark(this.bar, "aria-valuenow", Math.floor(whole * 100));
    mark(this.bar, "aria-valuetext", `${percent}, ${counted(ended(progress), "job")} ended`);
    mark(this.bar, "data-state", state);
  }
}

/** What there is to know of one batch. */
class Detail {
  #facts = el("dl", {className: "facts"});
  #kinds = el("tbody");
  #table = el(
    "div", {className: "wide", tabIndex: 0, role: "region", ariaLabel: "Error kinds"},
    el("table", {}, head("Error kind", "Jobs", "For example"), this.#kinds),
  );
  #results = el("p", {className: "results"});

  constructor(parent) {
    parent.append(this.#facts, this.#table, this.#results);
  }

  update(batch) {
    facts(this.#facts, details(batch));
    show(this.#table, batch.progress.kinds.length > 0);
    follow(this.#kinds, batch.progress.kinds, (kind) => kind.kind, kindRow);
    this.#link(batch);
  }

  #link(batch) {
    if (this.#results.firstChild !== null) {
      return;
    }
    const path = `v1/batches/${encodeURIComponent(batch.id)}/results`;
    if (hasToken()) {
      // A link can not carry a token.
      const command = `curl -H "Authorization: Bearer $TOKEN" "${new URL(path, document.baseURI)}"`;
      this.#results.append("Results: ", el("code", {}, command));
    } else {
      this.#results.append(el("a", {href: path, download: `${batch.id}.jsonl`}, "Results, as JSON lines"));
    }
  }
}

function head(...names) {
  return el("thead", {}, el("tr", {}, ...names.map((name) => el("th", {scope: "col"}, name))));
}

function kindRow() {
  const [name, jobs] = [el("th", {scope: "row"}), el("td", {className: "figure"})];
  const [url, message] = [el("span", {className: "url"}), el("span", {className: "message"})];
  return {
    node: el("tr", {}, name, jobs, el("td", {className: "example"}, url, message)),
    update: (kind) => {
      put(name, visible(kind.kind));
      put(jobs, count(kind.count));
      put(url, shortened(visible(kind.example_url), 90), visible(kind.example_url));
      put(message, shortened(visible(kind.example_message), 200), visible(kind.example_message));
    },
  };
}

function details(batch) {
  const {progress} = batch;
  const {p50, p90, p99} = progress.latency;
  const pairs = (counts) => Object.entries(counts).map(([key, value]) => `${visible(key)} ${count(value)}`).join(", ");
  const items = [
    ["Outcomes", pairs(progress.outcomes) || "none yet"],
    ["Statuses", pairs(progress.statuses) || "none yet"],
    ["Latency", p50 === null ? "\u2013" : `p50 ${brief(p50)}, p90 ${brief(p90)}, p99 ${brief(p99)}`],
    ["Received", `${size(progress.wire_bytes)}, ${size(progress.body_bytes)} of bodies`],
    ["Left", count(progress.left)],
    ["Retries", count(progress.retries)],
    ["Duplicates", count(progress.duplicates)],
    ["Created", `${date(batch.created_at)}, by ${batch.origin}`],
    ["Started", date(batch.started_at)],
    ["Finished", date(batch.finished_at)],
    ["Priority", `${batch.priority}, weight ${batch.weight}`],
  ];
  const rare = [
    ["Retry of", batch.retry_of === null ? "" : visible(batch.retry_of)],
    ["Filtered", progress.filtered ? `${count(progress.filtered)} records that a stage has dropped` : ""],
    ["Dead letters", pairs(progress.dead_letters)],
    ["Failures", batch.exceeded ? "more than max_failures allows" : ""],
  ];
  return [...items, ...rare.filter(([, text]) => text !== "")];
}
