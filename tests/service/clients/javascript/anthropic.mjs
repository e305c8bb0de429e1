// The official client of Anthropic: messages.

import Anthropic from "@anthropic-ai/sdk";
import { PIXEL, RAIN, SCHEMA, WEATHER } from "./questions.mjs";

export async function anthropic_messages({ url, model, what, text, stream }, { signal, piece }) {
  const client = new Anthropic({ baseURL: url, apiKey: "any" });
  const body = { model, max_tokens: 500, messages: [{ role: "user", content: text }] };
  if (what === "image") {
    const source = { type: "base64", media_type: "image/png", data: PIXEL };
    body.messages[0].content = [{ type: "image", source }, { type: "text", text }];
  }
  if (what === "json") body.output_config = { format: { type: "json_schema", schema: SCHEMA } };
  if (what === "tools") body.tools = [{ ...WEATHER, input_schema: SCHEMA }];
  const ask = async () => {
    if (!stream) return await client.messages.create(body, { signal });
    const runner = client.messages.stream(body, { signal });
    runner.on("text", (delta) => piece("text", delta));
    runner.on("thinking", (delta) => piece("reasoning", delta));
    return await runner.finalMessage();
  };
  let message = await ask();
  const call = message.content.find((block) => block.type === "tool_use");
  if (call) {
    const result = { type: "tool_result", tool_use_id: call.id, content: RAIN };
    body.messages.push({ role: "assistant", content: message.content }, { role: "user", content: [result] });
    message = await ask();
  }
  const texts = message.content.filter((block) => block.type === "text");
  return {
    text: texts.map((block) => block.text).join(""),
    call: call ? [call.name, call.input] : null,
    refusal: message.stop_details?.explanation ?? null,
    finish: message.stop_reason,
    tokens: message.usage.input_tokens + message.usage.output_tokens,
  };
}
