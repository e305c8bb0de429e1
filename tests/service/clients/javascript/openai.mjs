// The official client of OpenAI: chat completions and responses.

import OpenAI from "openai";
import { IMAGE, RAIN, SCHEMA, WEATHER } from "./questions.mjs";

const clientOf = (url) => new OpenAI({ baseURL: `${url}/v1`, apiKey: "any" });

export async function openai_chat({ url, model, what, text, stream }, { signal, piece }) {
  const client = clientOf(url);
  const body = { model, messages: [{ role: "user", content: text }] };
  if (what === "image") {
    const image = { type: "image_url", image_url: { url: IMAGE } };
    body.messages[0].content = [{ type: "text", text }, image];
  }
  if (what === "json") {
    const json_schema = { name: "place", strict: true, schema: SCHEMA };
    body.response_format = { type: "json_schema", json_schema };
  }
  if (what === "tools") {
    body.tools = [{ type: "function", function: { ...WEATHER, parameters: SCHEMA } }];
  }
  const ask = async () => {
    if (!stream) return await client.chat.completions.create(body, { signal });
    const options = { ...body, stream_options: { include_usage: true } };
    const runner = client.chat.completions.stream(options, { signal });
    runner.on("content", (delta) => piece("text", delta));
    return await runner.finalChatCompletion();
  };
  let completion = await ask();
  const call = completion.choices[0].message.tool_calls?.[0];
  if (call) {
    const result = { role: "tool", tool_call_id: call.id, content: RAIN };
    body.messages.push(completion.choices[0].message, result);
    completion = await ask();
  }
  const [{ message, finish_reason }] = completion.choices;
  return {
    text: message.content ?? "",
    call: call ? [call.function.name, JSON.parse(call.function.arguments)] : null,
    refusal: message.refusal ?? null,
    finish: finish_reason,
    tokens: completion.usage.total_tokens,
  };
}

export async function openai_responses({ url, model, what, text, stream }, { signal, piece }) {
  const client = clientOf(url);
  const body = { model, input: [{ role: "user", content: text }] };
  if (what === "image") {
    const image = { type: "input_image", image_url: IMAGE, detail: "auto" };
    body.input[0].content = [{ type: "input_text", text }, image];
  }
  if (what === "json") {
    body.text = { format: { type: "json_schema", name: "place", strict: true, schema: SCHEMA } };
  }
  if (what === "tools") {
    body.tools = [{ type: "function", ...WEATHER, parameters: SCHEMA, strict: true }];
  }
  const ask = async () => {
    if (!stream) return await client.responses.create(body, { signal });
    const runner = client.responses.stream(body, { signal });
    for await (const event of runner) {
      if (event.type === "response.output_text.delta") piece("text", event.delta);
      if (event.type === "response.reasoning_summary_text.delta") piece("reasoning", event.delta);
    }
    return await runner.finalResponse();
  };
  let response = await ask();
  const call = response.output.find((item) => item.type === "function_call");
  if (call) {
    // The helper of streams adds what it has parsed, which the API does not take back.
    const output = response.output.map(({ parsed_arguments, ...item }) => item);
    body.input.push(...output, { type: "function_call_output", call_id: call.call_id, output: RAIN });
    response = await ask();
  }
  const parts = response.output.flatMap((item) => (item.type === "message" ? item.content : []));
  const refused = parts.find((part) => part.type === "refusal");
  return {
    text: response.output_text,
    call: call ? [call.name, JSON.parse(call.arguments)] : null,
    refusal: refused ? refused.refusal : null,
    finish: response.incomplete_details?.reason ?? response.status,
    tokens: response.usage.total_tokens,
  };
}
