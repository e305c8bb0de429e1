// The page: which view is shown, and the key.

import { key } from "/page/api.js";
import { AskView } from "/page/ask.js";
import { OperationsView } from "/page/operations.js";

const by = (id) => document.getElementById(id);

function askForKey() {
  by("key-button").hidden = false;
  if (!by("key-dialog").open) by("key-dialog").showModal();
}

const ask = new AskView(askForKey);
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
  const name = location.hash.startsWith("#/operations") ? "operations" : "ask";
  by("ask").hidden = name !== "ask";
  by("operations").hidden = name !== "operations";
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (name === "operations") operations.show();
  else operations.hide();
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
