// The Vercel AI SDK, with each of its providers that speaks a protocol of the service.

import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, isStepCount, jsonSchema, Output, streamText, tool } from "ai";
import { PIXEL, RAIN, SCHEMA, WEATHER } from "./questions.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;

async function ask(model, { what, text, stream, retries }, { signal, piece }) {
  const calls = [];
  const messages = [{ role: "user", content: text }];
  const given = { model, messages, abortSignal: signal, maxRetries: retries };
  if (what === "image") {
    const image = { type: "file", data: Buffer.from(PIXEL, "base64"), mediaType: "image/png" };
    messages[0].content = [{ type: "text", text }, image];
  }
  if (what === "json") given.output = Output.object({ schema: jsonSchema(SCHEMA), name: "place" });
  if (what === "tools") {
    const execute = (city) => {
      calls.push(["weather", city]);
      return RAIN;
    };
    const { name, description } = WEATHER;
    given.tools = { [name]: tool({ description, inputSchema: jsonSchema(SCHEMA), execute }) };
    given.stopWhen = isStepCount(2);
  }
  const errors = [];
  let result;
  if (stream) {
    result = streamText({ ...given, onError: ({ error }) => errors.push(error) });
    for await (const part of result.fullStream) {
      if (part.type === "text-delta") piece("text", part.text);
      if (part.type === "reasoning-delta") piece("reasoning", part.text);
      if (part.type === "abort") throw new DOMException("aborted", "AbortError");
    }
    if (errors.length) throw errors[0];
  } else {
    result = await generateText(given);
  }
  return {
    text: await result.text,
    call: calls[0] ?? null,
    refusal: null,
    finish: await result.finishReason,
    tokens: (await result.totalUsage).totalTokens,
    output: what === "json" ? await result.output : null,
  };
}

const versioned = (url) => ({ baseURL: `${url}/v1`, apiKey: "any" });

export function vercel_compatible_chat(asked, tools) {
  const more = { name: "ultra", includeUsage: true, supportsStructuredOutputs: true };
  return ask(createOpenAICompatible({ ...versioned(asked.url), ...more })(asked.model), asked, tools);
}

export function vercel_openai_chat(asked, tools) {
  return ask(createOpenAI(versioned(asked.url)).chat(asked.model), asked, tools);
}

export function vercel_openai_responses(asked, tools) {
  return ask(createOpenAI(versioned(asked.url)).responses(asked.model), asked, tools);
}

export function vercel_anthropic_messages(asked, tools) {
  return ask(createAnthropic(versioned(asked.url))(asked.model), asked, tools);
}
