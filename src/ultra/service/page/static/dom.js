// Elements of the page. Text is always text: nothing here reads HTML.

/** Make an element; `given` are attributes, `on…` handlers, or `class`; children are nodes or text. */
export function el(name, given = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Make an SVG element. */
export function svg(name, given = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(given)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** Say something to a screen reader. */
export function announce(text) {
  document.getElementById("announcer").textContent = text;
}

export const seconds = (value) => (value === null || value === undefined ? "–" : `${value.toFixed(1)} s`);
export const dollars = (value) => (value === null || value === undefined ? "not known" : `$${value.toFixed(4)}`);
export const percent = (value) => (value === null || value === undefined ? "–" : `${Math.round(value * 100)} %`);
