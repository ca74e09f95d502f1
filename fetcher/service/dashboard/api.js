// Requests to the service, with the token if one is needed. It is kept for as long as the tab is open, no longer.
import {visible} from "./text.js";

const KEY = "fetcher.token";

/** The service did not do what it was asked for. `problems`: everything that is wrong with what was sent. */
export class Refused extends Error {
  constructor(message, status, problems = []) {
    super(message);
    this.status = status;
    this.problems = problems;
  }
}

/** Tell whether a token is in use. */
export function hasToken() {
  return sessionStorage.getItem(KEY) !== null;
}

/** Use another token, or none (null). */
export function setToken(token) {
  if (token === null) {
    sessionStorage.removeItem(KEY);
  } else {
    sessionStorage.setItem(KEY, token);
  }
}

/** Send a request; `path` is relative to the page, so that the service may stand behind a path of a proxy. */
export function send(path, options = {}) {
  const headers = new Headers(options.headers);
  const token = sessionStorage.getItem(KEY);
  if (token !== null) {
    headers.set("Authorization", `Bearer ${token}`);
  }
  return fetch(path, {...options, headers, credentials: "omit", cache: "no-store", redirect: "error"});
}

/** Send a request and return its answer, parsed; throws Refused with what the service says. */
export async function ask(method, path, options = {}) {
  let answer;
  try {
    answer = await send(path, {...options, method});
  } catch {
    throw new Refused("The service can not be reached.", 0);
  }
  if (!answer.ok) {
    throw await refusal(answer);
  }
  return answer.status === 204 ? null : answer.json();
}

/** Return what an answer that is no success says (RFC 9457). */
export async function refusal(answer) {
  let problem = {};
  try {
    problem = await answer.json();
  } catch {
    // Not from the service itself, then: a proxy.
  }
  const message = visible(problem.detail ?? problem.title ?? `The service answered with ${answer.status}.`);
  const problems = Array.isArray(problem.problems) ? problem.problems.map(visible) : [];
  return new Refused(message, answer.status, problems);
}
