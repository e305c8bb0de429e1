// Asks as it is told, by lines of JSON on stdin, and tells on stdout what came of it.
//
// {"id": 1, "client": "openai_chat", "url": …, "model": …, "what": …, "text": …, "stream": true}
//     is answered by {"id": 1, "piece": …} for each piece of a stream, and then by {"id": 1, "said": …} or
//     {"id": 1, "error": …}.
// {"abort": 1} lets the client hang up.

import { createInterface } from "node:readline";
import * as anthropic from "./anthropic.mjs";
import * as openai from "./openai.mjs";
import * as vercel from "./vercel.mjs";

const clients = { ...openai, ...anthropic, ...vercel };
const running = new Map();

const tell = (told) => process.stdout.write(`${JSON.stringify(told)}\n`);

function errorOf(error) {
  const innermost = error.lastError ?? error;
  return {
    name: innermost.name,
    message: String(innermost.message ?? innermost),
    status: innermost.status ?? innermost.statusCode ?? null,
    all: String(error.stack),
  };
}

async function answer({ id, client, ...asked }) {
  const controller = new AbortController();
  running.set(id, controller);
  const piece = (kind, text) => tell({ id, piece: [kind, text] });
  try {
    tell({ id, said: await clients[client](asked, { signal: controller.signal, piece }) });
  } catch (error) {
    tell({ id, error: errorOf(error) });
  } finally {
    running.delete(id);
  }
}

// What nobody waits for must not end the process, and is told as well.
process.on("unhandledRejection", (error) => tell({ unhandled: errorOf(error) }));

for await (const line of createInterface({ input: process.stdin })) {
  const told = JSON.parse(line);
  if ("abort" in told) running.get(told.abort)?.abort();
  else answer(told);
}
process.exit(0);
