// Elements, and how to change them without touching what is as it should be: focus and selection stay where they are.

/** Make an element. Text goes in as text nodes only, so that nothing that a server says can become an element. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) {
      node.addEventListener(name.slice(2), value);
    } else if (name in node && name !== "role") {
      node[name] = value;
    } else {
      node.setAttribute(name, value);
    }
  }
  node.append(...children);
  return node;
}

const SVG = "http://www.w3.org/2000/svg";

/** Make an element of a drawing. */
export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) {
    node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/** Set the text of an element, and what is shown over it, if that is another. */
export function put(node, text, title) {
  if (node.textContent !== text) {
    node.textContent = text;
  }
  if (title !== undefined && node.title !== title) {
    node.title = title;
  }
}

/** Set an attribute, or remove it (null), if it is another. */
export function mark(node, name, value) {
  if (value === null || value === undefined) {
    if (node.hasAttribute(name)) {
      node.removeAttribute(name);
    }
  } else if (node.getAttribute(name) !== String(value)) {
    node.setAttribute(name, value);
  }
}

/** Show or hide. */
export function show(node, shown) {
  if (node.hidden === shown) {
    node.hidden = !shown;
  }
}

/**
 * Keep the children of a node in step with a list. `key` names an item; `make` returns {node, update(item)} for a new
 * one. What is there stays there, and what has the focus keeps it even if it has to be moved; `heir` gets the focus of
 * what goes, or else the first button.
 */
export function follow(parent, items, key, make, heir = null) {
  const parts = (parent.parts ??= new Map());
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  const wanted = new Map(items.map((item) => [key(item), item]));
  for (const [name, part] of parts) {
    if (!wanted.has(name)) {
      part.node.remove();
      parts.delete(name);
    }
  }
  let before = parent.firstElementChild;
  for (const [name, item] of wanted) {
    let part = parts.get(name);
    if (part === undefined) {
      part = make(item);
      parts.set(name, part);
    }
    part.update(item);
    if (part.node === before) {
      before = before.nextElementSibling;
    } else {
      parent.insertBefore(part.node, before);
    }
  }
  // Unless it was taken care of further within.
  if (focused !== null && document.activeElement === document.body) {
    (focused.isConnected ? focused : heir ?? parent.querySelector("button"))?.focus({preventScroll: true});
  }
}
