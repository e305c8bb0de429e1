// Runs of the service: begun, followed to their end, also after a lost connection or a reload, and cancelled.

import { events, get, send, ServiceError } from "/page/api.js";

const LAST = new Set(["run_completed", "run_failed"]);
const LONGEST_WAIT = 15_000; // milliseconds between two tries to go on

let keeps = true; // whether the service keeps runs, as far as is known

export const isKeeping = () => keeps;

/** Find out whether the service keeps runs. */
export async function look() {
  keeps = (await get("/v1/status")).keeps_runs;
}
const place = (id) => `/v1/runs/${encodeURIComponent(id)}`;

/** Begin a run. `isKept`: it goes on by itself, and can be found again by its `id`. */
export async function begin(body, signal) {
  if (keeps) {
    try {
      return await post({ ...body, background: true }, signal, true);
    } catch (error) {
      if (error.status !== 400) throw error;
      // It cannot keep this one; if something else is wrong, the next try says so.
    }
  }
  const { metadata, ...rest } = body;
  return post(rest, signal, false);
}

async function post(body, signal, isKept) {
  const response = await send("/v1/runs", {
    method: "POST", body: { ...body, stream: true }, signal, accept: "text/event-stream",
  });
  return { id: response.headers.get("x-ultra-run-id"), isKept, response };
}

/** Return a run that was begun before, to be followed. */
export const found = (id) => ({ id, isKept: true, response: null });

/** Show the events of a run in `view`, to its end; `signal` ends this, and not the run. */
export async function follow(view, run, signal) {
  let { response } = run;
  let after = -1;
  for (let failures = 0; ; failures += 1) {
    try {
      response ??= await send(`${place(run.id)}/events?after=${after}`, { signal, accept: "text/event-stream" });
      if (response.status === 204) return;
      for await (const event of events(response)) {
        view.take(event);
        after = event.seq;
        failures = 0;
        if (LAST.has(event.type)) return;
      }
    } catch (error) {
      if (error.name === "AbortError") throw error;
      if (error instanceof ServiceError && error.status < 500) throw error;
    }
    if (!run.isKept) throw new Error("the connection ended before the run had");
    response = null;
    view.wait("the connection is lost; trying again …");
    await pause(Math.min(LONGEST_WAIT, 250 * 2 ** failures), signal);
  }
}

/** Cancel a kept run; its last event then says so. */
export const cancel = (id) => send(`${place(id)}/cancel`, { method: "POST", body: {} });

/** Return what is kept of a run; `withMessages`: also what was asked, with attachments. */
export const show = (id, signal, withMessages = false) =>
  get(`${place(id)}${withMessages ? "?messages=true" : ""}`, signal);

/** Return the title of a run: whom it asks, and how; one model alone is asked in no particular way. */
export function titleOf(run) {
  const how = run.strategy === "one_model" ? null : run.strategy;
  return [run.model ?? run.models.join(", "), how].filter(Boolean).join(", ");
}

/** Return some of the kept runs, the newest first, and the cursor of those that follow. */
export const list = (cursor) => get(`/v1/runs?limit=20${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`);

export const remove = (id) => send(place(id), { method: "DELETE" });

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    }, { once: true });
  });
}
