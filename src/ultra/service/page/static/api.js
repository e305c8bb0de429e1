// Requests to the service. The key, if there is one, stays in the session of this tab.

const KEY = "ultra-key";

export class ServiceError extends Error {
  constructor(status, error) {
    super(error?.message ?? `the service answered with status ${status}`);
    this.status = status;
    this.code = error?.code ?? null;
    this.param = error?.param ?? null;
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

/** Send a request; raise `ServiceError` for what is no success. */
export async function send(path, { method = "GET", body = null, signal = null, accept = "application/json" } = {}) {
  const headers = { accept };
  if (key.get()) headers.authorization = `Bearer ${key.get()}`;
  if (body !== null) headers["content-type"] = "application/json";
  const response = await fetch(path, {
    method, headers, signal, body: body === null ? null : JSON.stringify(body), cache: "no-store",
  });
  if (response.ok) return response;
  let error = null;
  try {
    error = (await response.json()).error;
  } catch {
    // a proxy in between may answer with something else
  }
  throw new ServiceError(response.status, error);
}

export const get = async (path, signal = null) => (await send(path, { signal })).json();

/** Yield the events of a run in a response of server-sent events, as they arrive. */
export async function* events(response) {
  if (response.status === 204) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let pieces = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const parts = value.split("\n");
      pieces.push(parts[0]);
      for (const part of parts.slice(1)) {
        const line = pieces.join("");
        pieces = [part];
        if (line.startsWith("data:")) yield JSON.parse(line.slice(5));
      }
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}
