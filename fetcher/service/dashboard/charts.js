// Lines over the last minutes, with axes: drawn as SVG in the pixels of the screen, so that text stays text.
import {el, mark, put, show, svg} from "./dom.js";
import {time} from "./text.js";

// How much time is shown, in seconds: the least in which everything that is known has its place, or else the most. With
// each, the moments that are named if there is room, and if there is little.
const SPANS = [
  {seconds: 60, all: [60, 45, 30, 15, 0], few: [50, 25, 0]},
  {seconds: 120, all: [120, 90, 60, 30, 0], few: [100, 50, 0]},
  {seconds: 300, all: [300, 240, 180, 120, 60, 0], few: [240, 120, 0]},
];
const HEIGHT = 132;
const EDGE = {top: 8, right: 10, bottom: 20, left: 54};
const GRID = 3;
const NARROW = 400;
// So many seconds without a moment are a gap, not a line.
const GAP = 5;
const STEPS = [1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10];

/** Return the least round number that is not less; of bytes, round in powers of 1024. */
export function ceiling(value, base = 10) {
  if (!(value > 0)) {
    return 1;
  }
  const unit = base === 1024 ? 1024 ** Math.max(0, Math.floor(Math.log2(value) / 10)) : 1;
  const power = 10 ** Math.floor(Math.log10(value / unit));
  const step = STEPS.find((each) => each * power * unit >= value * 0.9999) ?? 10;
  return step * power * unit;
}

/** Write how long ago something was. */
function ago(seconds) {
  if (seconds === 0) {
    return "now";
  }
  return seconds % 60 ? `\u2212${seconds} s` : `\u2212${seconds / 60} min`;
}

/**
 * A chart; of several lines it has a key to tell them apart.
 *
 * `title`; `lines`: [{name, tone, of(moment)}]; `write(value)` writes a value, `tick(value)` one at the axis; `base`
 * 1024 rounds the axis as it is done with bytes; `bound(moment)`, if given, is the most that there can be, drawn as a
 * dashed line; `least`: the axis reaches at least so far.
 */
export class Chart {
  #options;
  #moments = [];
  #width = 0;
  #pointer = null;
  #big = el("span", {className: "big"});
  #more = el("span", {className: "faint"});
  #drawing = svg("svg", {role: "img", height: HEIGHT, width: "100%"});
  #tip = el("div", {className: "tip", hidden: true, ariaHidden: "true"});

  constructor(options) {
    this.#options = options;
    const box = el("div", {className: "plot"}, this.#drawing, this.#tip);
    const several = options.lines.length > 1;
    const keys = options.lines.map(({name, tone}) => {
      const key = el("span", {className: "key"}, name);
      mark(key, "data-tone", tone);
      return key;
    });
    const aside = several ? el("span", {className: "faint"}, ...keys) : this.#more;
    const head = el("div", {className: "head"}, el("h2", {}, options.title), aside);
    const now = el("div", {className: "now"}, this.#big, ...(several ? [this.#more] : []));
    this.node = el("article", {className: "card chart"}, head, now, box);
    new ResizeObserver(([entry]) => {
      this.#width = Math.floor(entry.contentRect.width);
      this.#draw();
    }).observe(box);
    box.addEventListener("pointermove", (event) => this.#point(event.clientX - box.getBoundingClientRect().left));
    box.addEventListener("pointerleave", () => this.#point(null));
  }

  /** Show moments, the oldest first; `big` and `more` are what is to be read at once. */
  update(moments, big, more = "") {
    this.#moments = moments;
    put(this.#big, big);
    put(this.#more, more);
    this.#draw();
  }

  get #end() {
    return this.#moments.length ? Date.parse(this.#moments.at(-1).at) / 1000 : 0;
  }

  get #span() {
    const known = this.#moments.length ? this.#end - Date.parse(this.#moments[0].at) / 1000 : 0;
    return SPANS.find(({seconds}) => seconds >= known) ?? SPANS.at(-1);
  }

  #draw() {
    if (this.#width <= 0) {
      return;
    }
    const {lines, bound, least = 0, base, title} = this.#options;
    const most = this.#moments.reduce(
      (top, moment) => Math.max(top, ...lines.map((line) => line.of(moment) ?? 0)), least,
    );
    const last = this.#moments.at(-1);
    const limit = bound !== undefined && last !== undefined ? bound(last) : null;
    // A limit that is far away would press the line to the ground.
    const top = ceiling(limit !== null && limit <= 4 * most ? Math.max(most, limit) : most, base);
    const scale = this.#scale(top);
    mark(this.#drawing, "viewBox", `0 0 ${this.#width} ${HEIGHT}`);
    mark(this.#drawing, "aria-label", `${title}: ${this.#big.textContent} ${this.#more.textContent}`);
    this.#drawing.replaceChildren(
      ...this.#axes(top, scale), ...lines.flatMap((line, index) => this.#line(line, scale, index === 0)),
      ...(limit !== null && limit <= top ? this.#limit(limit, scale) : []), ...this.#cross(scale),
    );
  }

  #scale(top) {
    const [width, height] = [this.#width - EDGE.left - EDGE.right, HEIGHT - EDGE.top - EDGE.bottom];
    const {seconds} = this.#span;
    const begin = this.#end - seconds;
    return {
      x: (at) => EDGE.left + ((Date.parse(at) / 1000 - begin) / seconds) * width,
      y: (value) => EDGE.top + (1 - Math.min(1, value / top)) * height,
    };
  }

  #axes(top, {y}) {
    const {tick, write} = this.#options;
    const right = this.#width - EDGE.right;
    const rows = Array.from({length: GRID}, (_, index) => (top * index) / (GRID - 1)).flatMap((value) => [
      svg("line", {class: "grid", x1: EDGE.left, x2: right, y1: y(value), y2: y(value)}),
      svg("text", {x: EDGE.left - 8, y: y(value) + 4, "text-anchor": "end"}, (tick ?? write)(value)),
    ]);
    const {seconds, all, few} = this.#span;
    const columns = (this.#width < NARROW ? few : all).map((back) => {
      const x = EDGE.left + (1 - back / seconds) * (right - EDGE.left);
      return svg("text", {x, y: HEIGHT - 4, "text-anchor": back === 0 ? "end" : "middle"}, ago(back));
    });
    return [...rows, ...columns];
  }

  #line(line, {x, y}, filled) {
    const runs = this.#runs(line).map((run) => run.map(([at, value]) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`));
    const path = (kind, draw) => svg("path", {class: kind, d: runs.map(draw).join(""), "data-tone": line.tone});
    const foot = (point) => `${point.split(",")[0]},${y(0)}`;
    const area = path("area", (run) => `M${foot(run[0])}L${run.join("L")}L${foot(run.at(-1))}Z`);
    return [...(filled ? [area] : []), path("line", (run) => `M${run.join("L")}`)];
  }

  /** Return the values of a line as runs of [at, value] without a gap. */
  #runs(line) {
    const begin = this.#end - this.#span.seconds;
    const runs = [];
    let before = -Infinity;
    for (const moment of this.#moments) {
      const value = line.of(moment) ?? null;
      const at = Date.parse(moment.at) / 1000;
      if (value === null || at < begin) {
        before = -Infinity;
        continue;
      }
      if (at - before > GAP) {
        runs.push([]);
      }
      runs.at(-1).push([moment.at, value]);
      before = at;
    }
    return runs;
  }

  #limit(limit, {y}) {
    const right = this.#width - EDGE.right;
    return [svg("line", {class: "limit", x1: EDGE.left, x2: right, y1: y(limit), y2: y(limit)})];
  }

  #point(x) {
    this.#pointer = x;
    this.#draw();
  }

  #cross({x}) {
    const moment = this.#pointer === null ? undefined : this.#nearest(x);
    show(this.#tip, moment !== undefined);
    if (moment === undefined) {
      return [];
    }
    const values = this.#options.lines.map((line) => {
      const value = line.of(moment);
      return `${line.name} ${value === null || value === undefined ? "\u2013" : this.#options.write(value)}`;
    });
    put(this.#tip, `${time(moment.at)}   ${values.join("   ")}`);
    const at = x(moment.at);
    const left = Math.min(Math.max(0, at - this.#tip.offsetWidth / 2), this.#width - this.#tip.offsetWidth);
    this.#tip.style.left = `${Math.max(0, left)}px`;
    return [svg("line", {class: "cross", x1: at, x2: at, y1: EDGE.top, y2: HEIGHT - EDGE.bottom})];
  }

  #nearest(x) {
    let best;
    let least = 12;
    for (const moment of this.#moments) {
      const away = Math.abs(x(moment.at) - this.#pointer);
      if (away < least) {
        [best, least] = [moment, away];
      }
    }
    return best;
  }
}
