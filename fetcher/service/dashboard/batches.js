// The batches: how far each is, what became of its jobs, and the buttons.
import {Refused, ask, hasToken} from "./api.js";
import {askForToken, say, sure} from "./dialogs.js";
import {el, follow, mark, put, show} from "./dom.js";
import {brief, clock, count, counted, date, rate, share, shortened, size, visible} from "./text.js";

const OUTCOMES = ["ok", "failed", "skipped"];
const SIGNS = {queued: "\u25cb", running: "\u25b6", paused: "\u2016", done: "\u2713", failed: "\u2715", cancelled: "\u2298"};
const TONES = {queued: "quiet", running: "run", paused: "pause", done: "good", failed: "bad", cancelled: "quiet"};
const ACTIONS = {
  pause: {title: "Pause", states: ["running", "queued"]},
  resume: {title: "Resume", states: ["paused"]},
  cancel: {title: "Cancel", states: ["running", "queued", "paused"], sure: "Its jobs that have not ended will not be fetched. What it has fetched stays."},
  retry: {title: "Retry", states: ["failed", "cancelled", "done"]},
  delete: {title: "Delete", states: ["failed", "cancelled", "done"], sure: "The batch goes, and its results with it. Files elsewhere stay."},
};
const opened = new Set();
const busy = new Set();

/** Return the jobs that have ended. */
function ended(progress) {
  return OUTCOMES.reduce((sum, outcome) => sum + (progress.outcomes[outcome] ?? 0), 0);
}

/** Do what a button says, and say what came of it. */
async function act(name, batch, again) {
  const {title, sure: text} = ACTIONS[name];
  const shown = visible(batch.id);
  if (busy.has(batch.id)) {
    return;
  }
  if (text !== undefined && !(await sure(`${title} ${shown}?`, text, `${title} it`))) {
    return;
  }
  busy.add(batch.id);
  again();
  const path = `v1/batches/${encodeURIComponent(batch.id)}`;
  try {
    const answer = await (name === "delete" ? ask("DELETE", path) : ask("POST", `${path}/${name}`));
    say(done(name, shown, answer, batch));
  } catch (error) {
    if (error instanceof Refused && error.status === 401) {
      await askForToken(error.message);
    } else {
      say(`${title} ${shown}: ${error.message}`, "bad");
    }
  } finally {
    busy.delete(batch.id);
    again();
  }
}

function done(name, shown, answer, batch) {
  const words = {pause: "is being paused", resume: "goes on", cancel: "is being cancelled", delete: "was deleted"};
  if (name === "retry") {
    return answer.id === batch.id ? `${shown} goes on` : `What failed of ${shown} is tried again as ${visible(answer.id)}`;
  }
  return `${shown} ${words[name]}`;
}

/** Make the row of a batch. */
export function row(batch) {
  const id = `batch-${encodeURIComponent(batch.id)}`;
  const name = el("button", {type: "button", className: "name", ariaExpanded: "false"});
  const pill = el("span", {className: "pill"});
  const label = el("span", {className: "faint id"});
  const bar = new Bar();
  const numbers = el("dl", {className: "numbers"});
  const buttons = el("div", {className: "buttons"});
  const reason = el("p", {className: "reason", hidden: true});
  const detail = el("div", {className: "detail", id, hidden: true});
  const node = el(
    "article", {className: "batch"},
    el("div", {className: "title"}, name, pill, label), buttons, bar.node, numbers, reason, detail,
  );
  mark(name, "aria-controls", id);
  let latest = batch;
  let shownDetail = null;
  const update = (item) => {
    latest = item;
    const shown = visible(item.name);
    const isOpen = opened.has(item.id);
    put(name, shortened(shown, 60), shown);
    mark(name, "aria-expanded", isOpen);
    put(pill, `${SIGNS[item.state]} ${item.state}`);
    mark(pill, "data-tone", TONES[item.state]);
    mark(node, "data-state", item.state);
    put(label, item.id === item.name ? "" : visible(item.id));
    bar.update(item);
    facts(numbers, figures(item));
    follow(buttons, possible(item), (action) => action, (action) => button(action, () => latest, () => update(latest)));
    put(reason, item.reason === null ? "" : visible(item.reason));
    show(reason, item.reason !== null);
    show(detail, isOpen);
    if (isOpen) {
      (shownDetail ??= new Detail(detail)).update(item);
    }
  };
  name.addEventListener("click", () => {
    if (!opened.delete(latest.id)) {
      opened.add(latest.id);
    }
    update(latest);
  });
  return {node, update};
}

function possible(batch) {
  return Object.keys(ACTIONS).filter((action) => ACTIONS[action].states.includes(batch.state) && (action !== "retry" || retryable(batch)));
}

function retryable(batch) {
  return batch.state !== "done" || (batch.progress.outcomes.failed ?? 0) > 0;
}

function button(action, batch, again) {
  const node = el("button", {type: "button", className: "small", onclick: () => act(action, batch(), again)}, ACTIONS[action].title);
  return {
    node,
    update: () => {
      mark(node, "aria-label", `${ACTIONS[action].title} ${visible(batch().id)}`);
      // Not `disabled`, which would take the focus away.
      mark(node, "aria-disabled", busy.has(batch().id) ? "true" : null);
    },
  };
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
