// The page: which view is shown, and the key.

import { key } from "/page/api.js";
import { AskView } from "/page/ask.js";
import { HistoryView } from "/page/history.js";
import { OperationsView } from "/page/operations.js";

const by = (id) => document.getElementById(id);

function askForKey() {
  by("key-button").hidden = false;
  if (!by("key-dialog").open) by("key-dialog").showModal();
}

const ask = new AskView(askForKey);
const history = new HistoryView(by("history"), askForKey);
const operations = new OperationsView(by("operations"), askForKey);

async function load() {
  try {
    await ask.load();
    ask.tell(null);
  } catch (error) {
    if (error.status === 401) askForKey();
    else ask.tell(error.status ? error.message : "the service cannot be reached");
  }
}

function show() {
  const name = ["history", "operations"].find((each) => location.hash.startsWith(`#/${each}`)) ?? "ask";
  for (const each of ["ask", "history", "operations"]) by(each).hidden = name !== each;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (name === "operations") operations.show();
  else operations.hide();
  if (name === "history") history.show();
  const runs = new URLSearchParams(location.hash.slice(1)).get("run");
  if (runs) ask.open(runs.split(","));
}

by("key-button").addEventListener("click", askForKey);
by("key-button").hidden = !key.get();
by("key-form").addEventListener("submit", (event) => {
  key.set(event.submitter?.value === "forget" ? null : by("key").value.trim());
  by("key").value = "";
  load();
  show();
});
addEventListener("hashchange", show);
show();
load();
