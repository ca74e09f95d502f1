// Questions to the person at the page.
import {setToken} from "./api.js";
import {put, show} from "./dom.js";

const by = (id) => document.getElementById(id);

/** Ask whether to do something that can not be undone; returns true if so. Escape means no. */
export function sure(title, text, action) {
  const dialog = by("sure");
  put(by("sure-title"), title);
  put(by("sure-text"), text);
  put(by("sure-yes"), action);
  dialog.returnValue = "no";
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), {once: true});
    dialog.showModal();
    by("sure-no").focus();
  });
}

let asking = null;

/** Ask for a token, and use it. `wrong`: why the one that is in use is not good enough, or null. */
export function askForToken(wrong) {
  asking ??= ask(wrong).finally(() => {
    asking = null;
  });
  return asking;
}

function ask(wrong) {
  const dialog = by("token");
  const field = dialog.querySelector("input");
  put(by("token-wrong"), wrong ?? "");
  show(by("token-wrong"), Boolean(wrong));
  field.value = "";
  return new Promise((resolve) => {
    const close = () => {
      if (field.value.trim() === "") {
        dialog.showModal();  // closed by Escape: without a token there is nothing to see
        return;
      }
      dialog.removeEventListener("close", close);
      setToken(field.value.trim());
      field.value = "";
      resolve();
    };
    dialog.addEventListener("close", close);
    dialog.showModal();
  });
}

let hide = null;

/** Say what came of something that was asked for. What went well goes away by itself. */
export function say(text, tone = "good") {
  const banner = by("said");
  banner.dataset.tone = tone;
  put(banner.querySelector("p"), text);
  show(banner, true);
  clearTimeout(hide);
  hide = tone === "good" ? setTimeout(() => show(banner, false), 8000) : null;
}

by("said").querySelector("button").addEventListener("click", () => show(by("said"), false));
