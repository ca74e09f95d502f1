// What there is to see beside the batches: hosts, sinks, failures, and what bounds the throughput.
import {el, follow, mark, put, show} from "./dom.js";
import {brief, clock, count, counted, date, share, shortened, time, visible} from "./text.js";

const by = (id) => document.getElementById(id);
// A share of the waiting time that is not worth many words.
const SMALL = 0.03;
const DASH = "\u2013";

/** A table whose rows follow a list. `columns`: [{name, of(item) -> text or [text, title], tone(item), kind}]. */
class Table {
  #body = el("tbody");
  #columns;
  #key;

  constructor(parent, columns, key, nothing) {
    this.#columns = columns;
    this.#key = key;
    const names = columns.map(({name, kind = ""}) => el("th", {scope: "col", className: kind}, name));
    this.node = el("table", {}, el("thead", {}, el("tr", {}, ...names)), this.#body);
    this.nothing = el("p", {className: "faint none"}, nothing);
    parent.append(this.node, this.nothing);
  }

  update(items) {
    show(this.node, items.length > 0);
    show(this.nothing, items.length === 0);
    follow(this.#body, items, this.#key, () => this.#row());
  }

  #row() {
    const cells = this.#columns.map(({kind = ""}, index) =>
      index === 0 ? el("th", {scope: "row", className: kind}) : el("td", {className: kind}),
    );
    return {
      node: el("tr", {}, ...cells),
      update: (item) => {
        this.#columns.forEach(({of, tone}, index) => {
          const [text, title] = [of(item)].flat();
          put(cells[index], text, title ?? "");
          mark(cells[index], "data-tone", tone?.(item) ?? null);
        });
      },
    };
  }
}

const name = (text, most) => [shortened(visible(text), most), visible(text)];

const BREAKERS = {closed: "\u2713 closed", paused: "\u2016 paused", down: "\u2715 down"};

// A rest that is longer than the interval is worth a word; the other is how a rate is kept.
const rests = (host) => host.rests > Math.max(1, host.interval);

const slowed = (host) => host.limit < host.configured;

const HOSTS = [
  {name: "Host", of: (host) => name(host.host, 44), kind: "url"},
  {name: "In flight", of: (host) => count(host.in_flight), kind: "figure"},
  {
    name: "Limit", kind: "figure", tone: (host) => (slowed(host) ? "warn" : null),
    of: (host) => {
      const [limit, configured] = [count(host.limit), count(host.configured)];
      return slowed(host) ? [`\u2193 ${limit} of ${configured}`, "asked for less than it could be"] : configured;
    },
  },
  {name: "Waiting", of: (host) => count(host.waiting), kind: "figure"},
  {name: "Latency", of: (host) => brief(host.latency), kind: "figure"},
  {name: "Interval", of: (host) => (host.interval ? brief(host.interval) : DASH), kind: "figure"},
  {name: "Crawl delay", of: (host) => (host.crawl_delay ? brief(host.crawl_delay) : DASH), kind: "figure"},
  {
    name: "Rests", kind: "figure", tone: (host) => (rests(host) ? "warn" : null),
    of: (host) => (rests(host) ? clock(host.rests) : DASH),
  },
  {
    name: "Breaker", of: (host) => BREAKERS[host.breaker],
    tone: (host) => ({closed: null, paused: "warn", down: "bad"})[host.breaker],
  },
];

const SINKS = [
  {name: "Sink", of: (sink) => name(sink.required ? sink.sink : `${sink.sink} (optional)`, 40)},
  {name: "Batch", of: (sink) => name(sink.batch, 26)},
  {
    name: "State", tone: (sink) => (sink.trouble === null ? null : "bad"),
    of: (sink) => {
      if (sink.trouble !== null) {
        const trouble = visible(sink.trouble);
        return [`\u2715 for ${clock(sink.trouble_seconds)}: ${shortened(trouble, 80)}`, trouble];
      }
      return sink.writing ? "\u25b6 writing" : "\u2713 idle";
    },
    kind: "long",
  },
  {name: "Lag", of: (sink) => count(sink.lag), kind: "figure"},
  {name: "Errors", of: (sink) => count(sink.errors), kind: "figure", tone: (sink) => (sink.errors ? "warn" : null)},
  {
    name: "Dead letters", kind: "figure", tone: (sink) => (sink.dead_letters ? "bad" : null),
    of: (sink) => count(sink.dead_letters),
  },
];

const hosts = new Table(
  by("hosts").querySelector(".wide"), HOSTS, (host) => host.host, "No host is being fetched from.",
);
const sinks = new Table(
  by("sinks").querySelector(".wide"), SINKS, (sink) => `${sink.batch}\n${sink.sink}`,
  "No batch is running, so no sink is open.",
);

/** Show what a snapshot says. */
export function update(snapshot) {
  hosts.update(snapshot.hosts);
  const [shown, total] = [snapshot.hosts.length, snapshot.hosts_total];
  put(by("hosts-note"), total > shown ? `${shown} of ${count(total)}: the busiest, and those in trouble` : "");
  sinks.update(snapshot.sinks);
  failures(snapshot.failures);
  why(snapshot.why);
}

function failures(items) {
  put(by("failures-note"), items.length ? `the latest ${items.length}` : "none since the service was started");
  const key = ({at, batch, url, kind}) => [at, batch, url, kind].join("\n");
  follow(by("failed"), items, key, failureItem);
}

function failureItem() {
  const [when, kind, url, message] = [
    el("time"), el("span", {className: "pill"}), el("span", {className: "url"}), el("span", {className: "message"}),
  ];
  const about = el("span", {className: "faint"});
  mark(kind, "data-tone", "bad");
  return {
    node: el("li", {}, el("div", {className: "line"}, when, kind, about), url, message),
    update: (failure) => {
      put(when, time(failure.at), date(failure.at));
      mark(when, "datetime", failure.at);
      put(kind, visible(failure.kind));
      const tries = failure.attempts > 1 ? `, ${counted(failure.attempts, "attempt")}` : "";
      put(about, `${shortened(visible(failure.batch), 40)}${tries}`, visible(failure.batch));
      put(url, shortened(visible(failure.url), 100), visible(failure.url));
      put(message, shortened(visible(failure.message), 240), visible(failure.message));
    },
  };
}

function why(found) {
  show(by("why-note"), found !== null);
  put(by("why-note"), found === null ? "" : `over the last ${count(found.seconds)} s`);
  put(by("verdict"), found === null ? "Nothing runs, so nothing is bounded." : visible(found.verdict));
  const all = found?.bounds ?? [];
  const large = all.filter((bound, index) => index === 0 || bound.share >= SMALL);
  follow(by("bounds"), large, (bound) => bound.name, boundItem);
  const small = all.filter((bound) => !large.includes(bound)).map((bound) => visible(bound.name));
  put(by("small"), small.length ? `Less than ${share(SMALL)} each: ${small.join(", ")}` : "");
}

function boundItem() {
  const [title, part, fill] = [el("strong"), el("span", {className: "figure"}), el("span", {className: "part"})];
  const [explanation, advice, details] = [el("p"), el("p", {className: "advice"}), el("p", {className: "faint"})];
  return {
    node: el(
      "li", {}, el("div", {className: "line"}, title, part), el("div", {className: "bar", ariaHidden: "true"}, fill),
      explanation, advice, details,
    ),
    update: (bound) => {
      put(title, visible(bound.name));
      put(part, `${Math.round(100 * bound.share)} %`);
      fill.style.width = `${100 * bound.share}%`;
      put(explanation, visible(bound.explanation));
      put(advice, visible(bound.advice));
      show(advice, bound.advice !== "");
      put(details, bound.details.map((each) => shortened(visible(each), 80)).join(", "));
      show(details, bound.details.length > 0);
    },
  };
}

