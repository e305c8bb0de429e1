// The view in which one asks: the form, attachments, and the turns of the conversation.

import { get, lines, send, ServiceError } from "/page/api.js";
import { el } from "/page/dom.js";
import { RunView } from "/page/run.js";

const LARGEST = 20 * 2 ** 20; // bytes of one attachment

const by = (id) => document.getElementById(id);

/** The conversation and its form. `askForKey` is called where the service wants a key. */
export class AskView {
  constructor(askForKey) {
    this.askForKey = askForKey;
    this.messages = [];
    this.attachments = [];
    this.running = null;
    by("question-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.ask();
    });
    by("question").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        by("question-form").requestSubmit();
      }
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.stop();
    });
    by("stop").addEventListener("click", () => this.stop());
    by("new").addEventListener("click", () => this.restart());
    by("files").addEventListener("change", (event) => this.attach(event.target.files));
    by("question").addEventListener("paste", (event) => {
      if (event.clipboardData.files.length) this.attach(event.clipboardData.files);
    });
    by("compare").addEventListener("change", (event) => {
      by("second-label").hidden = !event.target.checked;
    });
  }

  /** Fill the choices with what the service offers. */
  async load() {
    const { data } = await get("/v1/models");
    const target = by("target");
    const chosen = target.value;
    target.replaceChildren();
    for (const kind of ["ensemble", "model"]) {
      const names = data.filter((each) => each.ultra.kind === kind);
      if (!names.length) continue;
      const group = el("optgroup", { label: kind === "ensemble" ? "Ensembles" : "Models" });
      for (const each of names) {
        const about = each.ultra.description ? ` – ${each.ultra.description}` : "";
        group.append(el("option", { value: each.id, "data-kind": kind }, each.id + about));
      }
      target.append(group);
    }
    if (chosen) target.value = chosen;
    const { strategies } = await get("/v1/strategies");
    for (const id of ["strategy", "second"]) {
      const select = by(id);
      const before = select.value;
      const first = id === "strategy" ? [el("option", { value: "" }, "as configured")] : [];
      select.replaceChildren(...first, ...strategies.map((name) => el("option", { value: name }, name)));
      if (before) select.value = before;
    }
  }

  async attach(files) {
    for (const file of files) {
      if (file.size > LARGEST) {
        this.tell(`${file.name} is too large; at most 20 MiB can be attached`);
        continue;
      }
      const url = await dataUrl(file);
      this.attachments.push({ name: file.name, url, isImage: file.type.startsWith("image/") });
    }
    by("files").value = "";
    this.showAttachments();
  }

  showAttachments() {
    by("attachments").hidden = !this.attachments.length;
    by("attachments").replaceChildren(...this.attachments.map((each, index) => {
      const remove = el("button", {
        type: "button", "aria-label": `Remove ${each.name}`,
        onclick: () => {
          this.attachments.splice(index, 1);
          this.showAttachments();
        },
      }, "×");
      const picture = each.isImage ? el("img", { src: each.url, alt: "" }) : null;
      return el("li", {}, picture, each.name, remove);
    }));
  }

  tell(words) {
    by("form-error").hidden = !words;
    by("form-error").textContent = words ?? "";
  }

  stop() {
    this.running?.abort();
  }

  restart() {
    this.stop();
    this.messages = [];
    by("thread").replaceChildren();
    by("new").hidden = true;
    by("question").focus();
  }

  content(text) {
    if (!this.attachments.length) return text;
    return [
      { type: "text", text },
      ...this.attachments.map((each) => (each.isImage
        ? { type: "image_url", image_url: { url: each.url } }
        : { type: "file", file: { filename: each.name, file_data: each.url } })),
    ];
  }

  async ask() {
    const text = by("question").value.trim();
    if (!text || this.running) return;
    this.tell(null);
    const question = { role: "user", content: this.content(text) };
    const messages = [...this.messages, question];
    const option = by("target").selectedOptions[0];
    const strategies = [by("strategy").value];
    if (by("compare").checked) strategies.push(by("second").value);
    const views = strategies.map((name) => new RunView(`${option.value}${name ? `, ${name}` : ""}`));
    const turn = el("article", { class: "turn" }, el("h2", {}, text), el("div", { class: "runs" }, ...views.map((view) => view.element)));
    by("thread").append(turn);
    this.running = new AbortController();
    this.busy(true);
    try {
      await Promise.all(views.map((view, index) => this.follow(view, bodyOf(messages, option, strategies[index]))));
    } finally {
      this.running = null;
      this.busy(false);
    }
    const answered = views.find((view) => view.result?.final_synthesis);
    if (answered) {
      this.messages = [...messages, { role: "assistant", content: answered.result.final_synthesis.content }];
      this.attachments = [];
      this.showAttachments();
      by("question").value = "";
    }
    by("new").hidden = false;
    by("question").focus();
  }

  async follow(view, body) {
    try {
      const response = await send("/v1/runs", { method: "POST", body, signal: this.running.signal, accept: "application/jsonl" });
      let last = null;
      for await (const event of lines(response)) {
        view.take(event);
        last = event.type;
      }
      if (last !== "run_completed" && last !== "run_failed") view.fail("the connection ended before the run had");
    } catch (error) {
      if (error.name === "AbortError") view.fail("stopped");
      else view.fail(error instanceof ServiceError ? error.message : "the service cannot be reached");
      if (error.status === 401) this.askForKey();
    }
  }

  busy(is) {
    by("send").disabled = is;
    by("stop").hidden = !is;
  }
}

function bodyOf(messages, option, strategy) {
  const single = messages.length === 1 && typeof messages[0].content === "string";
  const prompt = single ? messages[0].content : messages;
  const body = { prompt, model: option.value, stream: true, format: "jsonl" };
  if (strategy) body.strategy = strategy;
  return body;
}

function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(file);
  });
}
