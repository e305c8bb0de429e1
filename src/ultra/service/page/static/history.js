// The view of the runs that the service keeps: reopened, shared by their address, deleted.

import { el } from "/page/dom.js";
import { isKeeping, list, remove, titleOf } from "/page/runs.js";

export class HistoryView {
  constructor(element, askForKey) {
    this.element = element;
    this.askForKey = askForKey;
  }

  async show() {
    this.rows = el("ul", { class: "history" });
    this.more = el("button", { type: "button", hidden: true, onclick: () => this.load() }, "Older runs");
    this.words = el("p", { class: "quiet" }, "loading …");
    this.cursor = null;
    this.element.replaceChildren(el("h2", {}, "History"), this.words, this.rows, this.more);
    await this.load();
  }

  async load() {
    let page;
    try {
      page = await list(this.cursor);
    } catch (error) {
      this.tell(error.status ? error.message : "the service cannot be reached", "error");
      if (error.status === 401) this.askForKey();
      return;
    }
    this.rows.append(...page.data.map((run) => this.row(run)));
    this.cursor = page.next;
    this.more.hidden = !page.next;
    if (this.rows.children.length) this.words.hidden = true;
    else this.tell(isKeeping() ? "No runs are kept here yet." : "This service keeps no runs; give it a journal: store in the section [journal].", "quiet");
  }

  tell(words, kind) {
    this.words.hidden = false;
    this.words.className = kind;
    this.words.textContent = words;
  }

  row(run) {
    const question = run.prompt.trim() || "(no text)"; // its beginning
    const goesOn = run.state === "queued" || run.state === "running";
    const made = el("li", {},
      el("a", { href: `#run=${run.id}` }, question),
      el("p", { class: "quiet" },
        `${new Date(run.created_at * 1000).toLocaleString()} · ${titleOf(run)} · `,
        el("span", { class: { completed: "up", failed: "down", cancelled: "degraded" }[run.state] ?? "" }, goesOn ? "goes on" : run.state)),
      el("button", {
        type: "button", "aria-label": `Delete: ${question.slice(0, 60)}`,
        onclick: async () => {
          try {
            await remove(run.id);
            made.remove();
          } catch (error) {
            this.tell(error.status ? error.message : "the service cannot be reached", "error");
          }
        },
      }, "Delete"));
    return made;
  }
}
