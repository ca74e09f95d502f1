// The events of the service. EventSource can not send a token, so they are read from the body of an answer.
import {refusal, send} from "./api.js";

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 15000;
// Something comes at least every 15 s; after this long the connection is taken for dead.
const SILENCE = 40000;

/** Split a stream into events (WHATWG HTML, section 9.2, as far as the service makes use of it). */
export class Parser {
  #rest = "";

  /** Take what has arrived, and return the whole events in it as [name, data]. */
  push(text) {
    const blocks = (this.#rest + text).split("\n\n");
    this.#rest = blocks.pop();
    return blocks.map(parsed).filter(([, data]) => data !== "");
  }
}

function parsed(block) {
  let name = "message";
  let data = "";
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) {
      name = line.slice(7);
    } else if (line.startsWith("data: ")) {
      data += line.slice(6);
    }
  }
  return [name, data];
}

/**
 * Stay connected. `handlers`: one for each event by name; `open()`; `lost(reason, seconds)` when the connection is gone
 * and will be tried again in so many seconds; `token(wrong)` returns when there is another token to try.
 */
export class Stream {
  #handlers;
  #pause = FIRST_PAUSE;
  #wake = null;

  constructor(handlers) {
    this.#handlers = handlers;
  }

  /** Read for as long as the page is open. */
  async run() {
    for (;;) {
      const refused = await this.#read();
      if (refused?.status === 401) {
        await this.#handlers.token(refused);
        continue;
      }
      const pause = this.#pause * (0.75 + Math.random() / 2);
      this.#handlers.lost(refused, pause / 1000);
      await this.#rest(pause);
      this.#pause = Math.min(LONGEST_PAUSE, this.#pause * 2);
    }
  }

  /** Do not wait any longer. */
  hurry() {
    this.#pause = FIRST_PAUSE;
    this.#wake?.();
  }

  #rest(pause) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, pause);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #handle(name, data) {
    try {
      this.#handlers[name]?.(JSON.parse(data));
    } catch (error) {
      reportError(error);  // a fault of the page is no reason to connect anew
    }
  }

  /** Read until the connection ends; return what the service said if it refused. */
  async #read() {
    const abort = new AbortController();
    let watchdog = setTimeout(() => abort.abort(), SILENCE);
    try {
      const answer = await send("v1/events", {signal: abort.signal, headers: {Accept: "text/event-stream"}});
      if (!answer.ok) {
        return await refusal(answer);
      }
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      const parser = new Parser();
      this.#handlers.open();
      this.#pause = FIRST_PAUSE;
      for (;;) {
        const {value, done} = await reader.read();
        if (done) {
          return null;
        }
        clearTimeout(watchdog);
        watchdog = setTimeout(() => abort.abort(), SILENCE);
        for (const [name, data] of parser.push(value)) {
          this.#handle(name, data);
        }
      }
    } catch {
      return null;
    } finally {
      clearTimeout(watchdog);
      abort.abort();
    }
  }
}
