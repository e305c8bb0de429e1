// One run: what its events say, shown as they come.

import { send } from "/page/api.js";
import { announce, dollars, el, percent, seconds } from "/page/dom.js";
import { showMarkdown, showPlain } from "/page/markdown.js";

const ANSWERS = new Set(["initial", "propose", "samples"]);
const FINAL = new Set(["synthesis", "answer"]);
const TITLES = { initial: "Answers", meta: "Analysis", synthesis: "Synthesis", rank: "Rankings" };

/** A text that grows: appended as it comes, shown as Markdown once it is whole. */
class GrowingText {
  constructor(label, kind = "text plain") {
    const scrolls = label ? { tabindex: "0", role: "group", "aria-label": label } : {};
    this.element = el("div", { class: kind, ...scrolls });
    this.text = "";
    this.waiting = [];
  }

  append(text, restart) {
    if (restart) {
      this.text = "";
      this.waiting = [];
      this.element.textContent = "";
    }
    this.text += text;
    if (!this.waiting.length) requestAnimationFrame(() => this.flush());
    this.waiting.push(text);
  }

  flush() {
    if (this.waiting.length) this.element.append(this.waiting.join(""));
    this.waiting = [];
  }

  end(text) {
    this.waiting = [];
    this.text = text;
    showMarkdown(this.element, text);
  }
}

/** What a model thinks, folded; it is there once the model has thought anything. */
class Thoughts {
  constructor(name) {
    this.text = new GrowingText(`Reasoning of ${name}`, "thought");
    const open = document.getElementById("reasoning").checked;
    this.element = el("details", { class: "thoughts", hidden: true, open }, el("summary", {}, "Reasoning"), this.text.element);
  }

  take(event) {
    this.text.append(event.part.text, event.restart);
    this.element.hidden = !this.text.text;
  }
}

class Card {
  constructor(name) {
    this.name = name;
    this.state = el("span", { class: "state" }, "asked");
    this.text = new GrowingText(`Answer of ${name}`);
    this.thoughts = new Thoughts(name);
    const head = el("h4", {}, el("span", {}, name), this.state);
    this.element = el("article", { class: "card" }, head, this.thoughts.element, this.text.element);
  }

  become(state, words) {
    this.element.className = `card ${state}`;
    this.state.textContent = words;
  }
}

/** The cards of one step of the run. */
class Stage {
  constructor(name, round) {
    this.cards = new Map();
    this.isFinal = FINAL.has(name);
    const title = (TITLES[name] ?? name) + (round ? `, round ${round + 1}` : "");
    this.body = el("div", { class: "cards" });
    if (this.isFinal) {
      this.element = el("div", {});
    } else {
      this.element = el("details", { class: "stage", open: ANSWERS.has(name) }, el("summary", {}, title), this.body);
    }
  }

  card(event) {
    const name = event.sample ? `${event.model_name} #${event.sample + 1}` : event.model_name;
    if (!this.cards.has(name)) {
      const card = new Card(name);
      this.cards.set(name, card);
      this.body.append(card.element);
    }
    return this.cards.get(name);
  }
}

/** Shows one run in `element`. `finished` resolves with its result, or null. */
export class RunView {
  constructor(title) {
    this.title = el("h3", {}, title);
    this.stages = new Map();
    this.result = null;
    this.line = el("p", { class: "quiet" }, "asking …");
    this.steps = el("div", {});
    this.answerText = new GrowingText();
    this.writer = el("h4", {}, "Answer");
    this.thoughts = new Thoughts("the writer");
    const parts = [this.writer, this.thoughts.element, this.answerText.element];
    this.answer = el("div", { class: "answer", hidden: true }, ...parts);
    this.after = el("div", {});
    this.element = el(
      "div", { class: "run", role: "group", "aria-label": `Run: ${title}` }, // no landmark: turns have equal names
      this.title, this.line, this.answer, this.steps, this.after,
    );
  }

  /** Let the run be found again by its address. */
  link(id) {
    this.title.append(" ", el("a", { class: "permalink", href: `#run=${id}` }, "link"));
  }

  take(event) {
    const handler = this[`on_${event.type}`];
    if (handler) handler.call(this, event);
  }

  stage(event) {
    const name = `${event.stage} ${event.round ?? 0}`;
    if (!this.stages.has(name)) {
      const stage = new Stage(event.stage, event.round ?? 0);
      this.stages.set(name, stage);
      this.steps.append(stage.element);
    }
    return this.stages.get(name);
  }

  on_stage_started(event) {
    this.stage(event);
    this.line.hidden = false;
    this.line.className = "quiet";
    const waits = event.asks === "first" ? event.models[0] : event.models.join(", ");
    this.line.textContent = `${TITLES[event.stage] ?? event.stage}: ${waits}`;
    announce(this.line.textContent);
  }

  on_model_started(event) {
    const stage = this.stage(event);
    if (stage.isFinal) this.writer.textContent = `${event.model_name} writes the answer`;
    else stage.card(event).become("asked", "asked");
  }

  on_chunk(event) {
    const stage = this.stage(event);
    if (stage.isFinal) {
      this.answer.hidden = false;
      this.answerText.append(event.text, event.restart);
      return;
    }
    const card = stage.card(event);
    card.become("writing", "writing …");
    card.text.append(event.text, event.restart);
  }

  on_reasoning(event) {
    const stage = this.stage(event);
    if (stage.isFinal) {
      this.answer.hidden = false;
      this.thoughts.take(event);
      return;
    }
    const card = stage.card(event);
    if (!card.element.classList.contains("writing")) card.become("thinking", "thinking …");
    card.thoughts.take(event);
  }

  on_model_retrying(event) {
    const words = `retrying in ${event.wait.toFixed(1)} s (${event.kind})`;
    const stage = this.stage(event);
    if (stage.isFinal) this.writer.textContent = `${event.model_name}: ${words}`;
    else stage.card(event).become("retrying", words);
  }

  on_model_response(event) {
    const stage = this.stage(event);
    if (stage.isFinal) return;
    const card = stage.card(event);
    const { response } = event;
    const tokens = (response.usage?.output ?? 0) || null;
    const about = [seconds(response.response_time), tokens && `${tokens} tokens`, response.cached && "kept"];
    card.become("answered", about.filter(Boolean).join(", "));
    card.text.end(response.content);
  }

  on_model_failed(event) {
    const stage = this.stage(event);
    const why = event.failure.kind ?? event.failure.error;
    if (stage.isFinal) this.writer.textContent = `${event.model_name} failed (${why})`;
    else stage.card(event).become("failed", `failed (${why})`);
  }

  on_prompt_fitted(event) {
    this.after.append(el("p", { class: "notice" }, `What ${event.model_name} reads was cut to its window.`));
  }

  on_run_completed(event) {
    this.result = event.result;
    this.line.hidden = true;
    const final = event.result.final_synthesis;
    if (final) {
      this.answer.hidden = false;
      this.writer.textContent = `Answer by ${final.model_name}`;
      this.answerText.end(final.content);
    }
    this.summarize(event.result);
    announce(`The answer is there, ${event.result.status}.`);
  }

  on_run_failed(event) {
    this.fail(event.error === "RunCancelled" ? "stopped" : event.message);
  }

  /** Say what it waits for. */
  wait(words) {
    this.line.hidden = false;
    this.line.className = "quiet";
    this.line.textContent = words;
  }

  /** Show the answer of a result, and no more. */
  recall(result) {
    this.result = result;
    this.line.hidden = true;
    this.steps.hidden = true;
    const final = result.final_synthesis;
    if (!final) return;
    this.answer.hidden = false;
    this.writer.textContent = `Answer by ${final.model_name}`;
    this.answerText.end(final.content);
  }

  fail(words) {
    this.line.hidden = false;
    this.line.className = "error";
    this.line.textContent = words;
    this.answerText.flush();
    for (const stage of this.stages.values()) {
      for (const card of stage.cards.values()) {
        if (["asked", "thinking", "writing", "retrying"].some((each) => card.element.classList.contains(each))) {
          card.become("failed", "stopped");
        }
      }
    }
    announce(words);
  }

  summarize(result) {
    const tokens = { input: 0, output: 0 };
    for (const step of result.steps) {
      for (const each of step.responses) {
        for (const usage of [each.usage, each.lost_usage]) {
          tokens.input += usage?.input ?? 0;
          tokens.output += usage?.output ?? 0;
        }
      }
    }
    const figures = {
      status: result.status,
      confidence: result.confidence === null ? "–" : `${percent(result.confidence)} (${result.confidence_basis})`,
      cost: costOf(result),
      tokens: `${tokens.input} read, ${tokens.output} written`,
      time: seconds(result.response_time),
      source: result.synthesis_source ?? "–",
    };
    const items = Object.entries(figures).map(([name, value]) => el("li", {}, `${name} `, el("b", {}, value)));
    this.after.append(el("ul", { class: "figures" }, ...items));
    for (const notice of result.notices) this.after.append(el("p", { class: "notice" }, notice));
    for (const failure of result.failures) this.after.append(el("p", { class: "notice" }, failure.message));
    this.compare(result);
  }

  compare(result) {
    const first = result.steps.find((step) => step.responses.length > 1);
    if (!first) return;
    const names = first.responses.map((each) => (each.sample ? `${each.model_name} #${each.sample + 1}` : each.model_name));
    const scored = first.responses
      .map((each, index) => ({ name: names[index], quality: each.quality }))
      .filter((each) => each.quality !== null)
      .sort((one, other) => other.quality - one.quality);
    const ranked = Object.entries(result.ranking ?? {}).map(([name, quality]) => ({ name, quality }));
    if (ranked.length) this.after.append(ranking("Ranking", ranked, "score of its ranks", true));
    if (scored.length) this.after.append(ranking("Scores", scored, result.quality_basis ?? "score", false));
    const answers = Object.fromEntries(first.responses.map((each, index) => [names[index], each.content]));
    const place = el("div", { class: "scroll" });
    this.after.append(place);
    showMatrix(place, result.prompt, answers);
  }
}

/** Return what a run cost, and of which models that is not known. */
function costOf(result) {
  const answers = result.steps.flatMap((step) => step.responses).filter((each) => !each.cached);
  const paid = [...answers, ...result.failures.filter((each) => each.usage)];
  const unknown = [...new Set(paid.filter((each) => (each.cost ?? null) === null).map((each) => each.model_name))];
  if (result.cost === null || !unknown.length) return dollars(result.cost);
  return `${dollars(result.cost)}, not known for ${unknown.join(", ")}`;
}

function ranking(title, scored, basis, open) {
  const rows = scored.map((each, index) =>
    el("tr", {}, el("td", { class: "number" }, String(index + 1)), el("th", { scope: "row" }, each.name),
      el("td", { class: "number" }, each.quality.toFixed(2))));
  const head = el("tr", {}, ...["#", "answer", basis].map((name) => el("th", { scope: "col" }, name)));
  return el("details", { class: "stage", open }, el("summary", {}, title),
    el("table", { class: "data" }, el("thead", {}, head), el("tbody", {}, ...rows)));
}

async function showMatrix(place, question, answers) {
  if (Object.keys(answers).length > 32) return;
  let found;
  try {
    const body = { answers, question: typeof question === "string" ? question : "" };
    found = await (await send("/v1/agreement", { method: "POST", body })).json();
  } catch {
    return; // the answer is there all the same
  }
  const names = Object.keys(answers);
  const head = el("tr", {}, el("td", {}), ...names.map((name) => el("th", { scope: "col" }, name)));
  const rows = names.map((one) => el("tr", {}, el("th", { scope: "row" }, one), ...names.map((other) => {
    const value = found.pairs[one][other];
    const cell = el("td", {}, one === other ? "–" : percent(value));
    if (one !== other) cell.style.background = `rgb(var(--heat) / ${(value * 0.45).toFixed(2)})`;
    return cell;
  })));
  place.append(el("table", { class: "data matrix" },
    el("caption", {}, "Who agrees with whom"), el("thead", {}, head), el("tbody", {}, ...rows)));
}
