// The view in which one asks: the form, attachments, and the turns of the conversation.

import { get } from "/page/api.js";
import { el } from "/page/dom.js";
import { RunView } from "/page/run.js";
import { begin, cancel, follow, found, isKeeping, look, show, titleOf } from "/page/runs.js";

const LARGEST = 20 * 2 ** 20; // bytes of one attachment
const QUOTED = 200; // characters of a question that the service tells of a run
const MOST_TURNS = 50; // of a conversation that is opened again

const by = (id) => document.getElementById(id);

/** The conversation and its form. `askForKey` is called where the service wants a key. */
export class AskView {
  constructor(askForKey) {
    this.askForKey = askForKey;
    this.messages = [];
    this.attachments = [];
    this.running = null;
    this.wanted = null;
    this.shown = []; // the ids of the last turn's runs
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
        const given = { value: each.id, "data-kind": kind, "data-strategy": each.ultra.strategy };
        group.append(el("option", given, each.id + about));
      }
      target.append(group);
    }
    if (chosen) target.value = chosen;
    this.choose();
    await look();
    const { strategies } = await get("/v1/strategies");
    for (const id of ["strategy", "second"]) {
      const select = by(id);
      const before = select.value;
      const first = id === "strategy" ? [el("option", { value: "" }, "as configured")] : [];
      select.replaceChildren(...first, ...strategies.map((name) => el("option", { value: name }, name)));
      if (before) select.value = before;
    }
  }

  /** Choose whom the conversation that is shown was with, once that can be chosen. */
  choose() {
    const options = [...by("target").options];
    if (this.wanted && options.some((each) => each.value === this.wanted)) {
      by("target").value = this.wanted;
      this.wanted = null;
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

  /** Stop the runs under way. */
  stop() {
    if (!this.running) return;
    this.running.isStopped = true;
    for (const run of this.running.runs) this.end(run);
    if (!isKeeping() || this.running.runs.some((run) => !run.isKept)) this.running.abort();
  }

  async end(run) {
    try {
      if (run.isKept) await cancel(run.id);
    } catch (error) {
      this.tell(error.status ? error.message : "the service cannot be reached");
    }
  }

  /** Follow the runs under way no more; kept ones go on. */
  leave() {
    this.running?.abort();
    this.running = null;
    this.busy(false);
  }

  restart() {
    this.stop();
    this.leave();
    this.clear();
    window.history.pushState(null, "", "#/ask");
    by("question").focus();
  }

  clear() {
    this.messages = [];
    this.shown = [];
    by("thread").replaceChildren();
    by("new").hidden = true;
  }

  /** Show runs that the service keeps, with the turns before them; those under way are followed. */
  async open(ids) {
    if (ids.join() === this.shown.join()) return;
    this.leave();
    this.clear();
    this.tell(null);
    const running = this.begin();
    try {
      const turns = await conversation(ids, running.signal);
      if (running !== this.running) return;
      this.shown = ids;
      this.wanted = turns.at(-1)[0].model;
      this.choose();
      by("new").hidden = false;
      const last = turns.at(-1);
      const said = last[0].messages.filter((each) => each.role !== "system"); // an ensemble gives its own again
      const asked = said.filter((each) => each.role === "user");
      this.messages = said.slice(0, said.lastIndexOf(asked.at(-1)));
      const before = turns.slice(0, -1);
      const answered = before.filter((runs) => answeredBy(runs));
      const places = new Map(answered.map((runs, index) => [runs, asked.length - 1 - answered.length + index]));
      for (const runs of before) this.recall(runs, asked[places.get(runs)]?.content);
      const views = last.map((run) => new RunView(titleOf(run)));
      this.turn(last[0], views, asked.at(-1).content);
      this.watch(running, last.map((run) => found(run.id)), views);
      await Promise.all(views.map((view, index) => this.follow(running, view, found(last[index].id))));
      this.conclude(running, views, said);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.tell(error.status ? error.message : "the service cannot be reached");
      if (error.status === 401) this.askForKey();
    } finally {
      this.finish(running);
    }
  }

  /** Show a turn of before with its answer alone; `content` is its question with attachments, if it is known. */
  recall(runs, content) {
    const views = runs.map((run) => new RunView(titleOf(run)));
    this.turn(runs[0], views, content ?? answeredBy(runs)?.prompt);
    runs.forEach((run, index) => {
      if (run.result) views[index].recall(run.result);
      else views[index].fail(run.error?.message ?? run.state);
      views[index].link(run.id);
    });
  }

  /** Show a turn: its question, of which a run knows the beginning, what was attached, and its runs. */
  turn(run, views, content) {
    const beginning = run.prompt?.length < QUOTED ? run.prompt : `${run.prompt} …`;
    by("thread").append(el(
      "article", { class: "turn" }, el("h2", {}, content ? textOf(content) : beginning),
      attached(content, run.metadata?.attachments), el("div", { class: "runs" }, ...views.map((view) => view.element)),
    ));
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
    const messages = [...this.messages, { role: "user", content: this.content(text) }];
    const option = by("target").selectedOptions[0];
    const strategies = [by("strategy").value];
    if (by("compare").checked) strategies.push(by("second").value);
    const views = strategies.map((name) => (
      new RunView(titleOf({ model: option.value, strategy: name || option.dataset.strategy }))));
    const running = this.begin();
    const metadata = this.shown.length ? { after: this.shown.join() } : {};
    const names = this.attachments.map((each) => each.name).join(", ");
    if (names) metadata.attachments = names.slice(0, 500);
    this.turn({ metadata }, views, messages.at(-1).content);
    try {
      const begun = await Promise.allSettled(
        strategies.map((name) => begin(bodyOf(messages, option, name, metadata), running.signal)));
      const runs = begun.map((each) => each.value ?? null);
      if (running !== this.running) return;
      const kept = runs.filter((run) => run?.isKept).map((run) => run.id);
      if (kept.length) {
        this.shown = kept;
        window.history.pushState(null, "", `#run=${kept.join()}`);
      }
      this.watch(running, runs.filter(Boolean), views.filter((_, index) => runs[index]));
      await Promise.all(views.map((view, index) => this.follow(running, view, runs[index], begun[index].reason)));
      if (this.conclude(running, views, messages)) {
        this.attachments = [];
        this.showAttachments();
        by("question").value = "";
      }
    } finally {
      this.finish(running);
    }
  }

  /** Begin to ask or to follow; what is returned is aborted when something else is shown. */
  begin() {
    const running = new AbortController();
    running.runs = [];
    running.isStopped = false;
    this.running = running;
    this.busy(true);
    return running;
  }

  watch(running, runs, views) {
    running.runs = runs;
    runs.forEach((run, index) => {
      if (run.isKept) views[index].link(run.id);
    });
    if (running.isStopped) this.stop();
  }

  finish(running) {
    if (running !== this.running) return;
    this.running = null;
    this.busy(false);
    by("new").hidden = false;
    if (!by("ask").hidden) by("question").focus();
  }

  /** Let the conversation go on behind the answer, if there is one; return whether there is. */
  conclude(running, views, messages) {
    const answer = views.find((view) => view.result?.final_synthesis)?.result.final_synthesis;
    if (!answer || running !== this.running) return false;
    this.messages = [...messages, { role: "assistant", content: answer.content }];
    return true;
  }

  async follow(running, view, run, problem) {
    try {
      if (!run) throw problem;
      await follow(view, run, running.signal);
    } catch (error) {
      if (error.name === "AbortError") view.fail("stopped");
      else if (error.status || error.message.startsWith("the connection")) view.fail(error.message);
      else view.fail("the service cannot be reached");
      if (error.status === 401) this.askForKey();
    }
  }

  busy(is) {
    by("send").disabled = is;
    by("stop").hidden = !is;
  }
}

function bodyOf(messages, option, strategy, metadata) {
  const single = messages.length === 1 && typeof messages[0].content === "string";
  const prompt = single ? messages[0].content : messages;
  const body = { prompt, model: option.value, metadata };
  if (strategy) body.strategy = strategy;
  if (by("reasoning").checked) body.options = { show_reasoning: true };
  return body;
}

/** Return the turns that led to these runs, the first one first, and the runs themselves as the last. */
async function conversation(ids, signal) {
  const turns = [];
  for (let next = ids; next.length && turns.length < MOST_TURNS;) {
    let runs;
    try {
      runs = await Promise.all(next.map((id, index) => show(id, signal, !turns.length && !index)));
    } catch (error) {
      if (!turns.length || error.status !== 404) throw error;
      break; // an earlier turn was deleted
    }
    turns.unshift(runs);
    next = (runs[0].metadata.after ?? "").split(",").filter(Boolean);
  }
  return turns;
}

/** Return the result of the run with which the conversation went on; undefined: there is no answer. */
const answeredBy = (runs) => runs.find((run) => run.result?.final_synthesis)?.result;

/** Return the text of a message. */
function textOf(content) {
  if (typeof content === "string") return content;
  return content.filter((part) => part.type === "text").map((part) => part.text).join("\n");
}

/** Show what was attached to a question, with its pictures; where its content is not known, the names alone. */
function attached(content, names) {
  const given = names?.split(", ") ?? [];
  const parts = typeof content === "string" ? [] : (content?.filter((part) => part.type !== "text") ?? []);
  const shown = parts.map((part, index) => {
    const name = parts.length === given.length ? given[index] : null;
    const url = part.image_url?.url ?? "";
    const picture = url.startsWith("data:image/") ? el("img", { src: url, alt: "" }) : null;
    return [picture, name ?? part.file?.filename ?? (part.image_url ? "image" : "document")];
  });
  const all = parts.length ? shown : given.map((name) => [null, name]);
  return all.length ? el("ul", { class: "attachments", "aria-label": "Attached" }, ...all.map((each) => el("li", {}, ...each))) : null;
}

function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(file);
  });
}
