// What is asked of the service: one question, with a tool, a schema or an image.

export const SCHEMA = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};

export const PIXEL =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

export const IMAGE = `data:image/png;base64,${PIXEL}`;

export const WEATHER = { name: "weather", description: "The weather in a city." };

// What the tool answers, whatever the city.
export const RAIN = "Rain.";
