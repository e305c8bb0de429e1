// What models wrote, as Markdown: parsed by marked, and let through by DOMPurify alone.

import { Marked } from "/page/vendor/marked.js";

const marked = new Marked({ gfm: true, breaks: true });

const RULES = {
  ALLOWED_TAGS: [
    "a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p",
    "pre", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
  ],
  ALLOWED_ATTR: ["href", "start", "title"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  RETURN_DOM_FRAGMENT: true,
};

/** Show text as Markdown in an element. Images and everything else that loads something are left out. */
export function showMarkdown(element, text) {
  let fragment;
  try {
    fragment = window.DOMPurify.sanitize(marked.parse(text), RULES);
  } catch {
    showPlain(element, text);
    return;
  }
  for (const link of fragment.querySelectorAll("a")) {
    link.setAttribute("rel", "noopener noreferrer nofollow");
    link.setAttribute("target", "_blank");
  }
  // The headings of an answer stand below those of the page.
  for (const heading of fragment.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
    const lower = document.createElement("p");
    const strong = document.createElement("strong");
    strong.append(...heading.childNodes);
    lower.append(strong);
    heading.replaceWith(lower);
  }
  for (const block of fragment.querySelectorAll("pre")) block.setAttribute("tabindex", "0");
  element.classList.remove("plain");
  element.replaceChildren(fragment);
}

/** Show text as it is. */
export function showPlain(element, text) {
  element.classList.add("plain");
  element.textContent = text;
}
