// The form that submits a batch: URLs or a config, pasted or as a file, which is streamed and not read here.
import {Refused, ask} from "./api.js";
import {askForToken, say} from "./dialogs.js";
import {el, mark, put, show} from "./dom.js";
import {visible} from "./text.js";

const by = (id) => document.getElementById(id);
const dialog = by("new");
const form = dialog.querySelector("form");
const TYPES = {
  txt: "text/plain", csv: "text/csv", jsonl: "application/x-ndjson", ndjson: "application/x-ndjson",
  yaml: "application/yaml", yml: "application/yaml", json: "application/json",
};
const CONFIGS = ["application/yaml", "application/json"];
const HINTS = {
  "text/plain": ["URLs", "https://example.org/1\nhttps://example.org/2"],
  "application/yaml": ["Config", "name: example\nsources: [urls.txt]\nlimits:\n  per_host: {concurrency: 4}"],
};

/** Open the form. */
export function open() {
  wrong();
  dialog.showModal();
  choose();
}

function choose() {
  const what = form.elements.what.value;
  const isFile = what === "file";
  show(by("new-text"), !isFile);
  show(by("new-file"), isFile);
  if (!isFile) {
    const [label, hint] = HINTS[what];
    put(by("new-text").querySelector("span"), label);
    form.elements.text.placeholder = hint;
  }
  show(by("new-more"), !CONFIGS.includes(typeOf()));
}

function typeOf() {
  const what = form.elements.what.value;
  if (what !== "file") {
    return what;
  }
  const name = form.elements.file.files[0]?.name ?? "";
  return TYPES[name.split(".").pop().toLowerCase()];
}

/** Say what is wrong with what was entered, or that nothing is. */
function wrong(message = "", problems = []) {
  const box = by("new-wrong");
  box.replaceChildren();
  show(box, message !== "");
  if (message !== "") {
    box.append(el("p", {}, message));
  }
  if (problems.length) {
    box.append(el("ul", {}, ...problems.map((each) => el("li", {}, each))));
  }
}

/** Return [type, body] of what is to be sent; throws Refused for what can not be. */
function content() {
  const type = typeOf();
  if (form.elements.what.value !== "file") {
    if (form.elements.text.value.trim() === "") {
      throw new Refused(type === "text/plain" ? "Enter at least one URL." : "Enter a config.", 0);
    }
    return [type, form.elements.text.value];
  }
  const [file] = form.elements.file.files;
  if (file === undefined) {
    throw new Refused("Choose a file.", 0);
  }
  if (type === undefined) {
    const endings = Object.keys(TYPES).map((ending) => `.${ending}`).join(", ");
    throw new Refused(`The name of ${visible(file.name)} should say what is in it: it should end with ${endings}.`, 0);
  }
  return [type, file];
}

function query(type) {
  const parameters = new URLSearchParams();
  if (!CONFIGS.includes(type)) {
    for (const name of ["name", "priority", "weight"]) {
      const value = form.elements[name].value.trim();
      if (value !== "") {
        parameters.set(name, value);
      }
    }
  }
  return parameters.size ? `?${parameters}` : "";
}

async function submit() {
  const button = form.querySelector("[type=submit]");
  if (button.ariaDisabled === "true") {
    return;
  }
  wrong();
  mark(button, "aria-disabled", "true");
  try {
    const [type, body] = content();
    const batch = await ask("POST", `v1/batches${query(type)}`, {headers: {"Content-Type": type}, body});
    dialog.close();
    form.reset();
    say(`${visible(batch.id)} was submitted`);
  } catch (error) {
    if (!(error instanceof Refused)) {
      throw error;
    }
    if (error.status === 401) {
      await askForToken(error.message);
    } else {
      wrong(error.message, error.problems);
    }
  } finally {
    mark(button, "aria-disabled", null);
  }
}

form.addEventListener("change", choose);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
form.querySelector("[value=close]").addEventListener("click", () => dialog.close());
by("submit").addEventListener("click", open);
by("submit-first").addEventListener("click", open);
