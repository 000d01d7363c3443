// The openai package of npm.
import OpenAI from "openai";
import { CHAT_TOOL, HELLO, LONG, PIECES, PIXEL_URL, SCHEMA, WEATHER, expect, raises, run } from "./reporting.mjs";

const client = (url, key) => new OpenAI({ baseURL: url + "/v1", apiKey: key });
const ask = (content) => ({ model: "gpt-4o", messages: [{ role: "user", content }] });

await run({
  async chat(url, key) {
    const answer = await client(url, key).chat.completions.create(ask(HELLO));
    expect(answer.choices[0].message.content === HELLO, answer);
  },
  async streaming(url, key) {
    let text = "";
    const stream = await client(url, key).chat.completions.create({ ...ask(HELLO), stream: true });
    for await (const chunk of stream) text += chunk.choices[0].delta.content ?? "";
    expect(text === HELLO, text);
  },
  async tools(url, key) {
    const answer = await client(url, key).chat.completions.create({ ...ask(WEATHER), tools: [CHAT_TOOL] });
    const given = JSON.parse(answer.choices[0].message.tool_calls[0].function.arguments);
    expect(SCHEMA.required.every((name) => name in given), given);
  },
  async images(url, key) {
    const content = [{ type: "text", text: HELLO }, { type: "image_url", image_url: { url: PIXEL_URL } }];
    const answer = await client(url, key).chat.completions.create(ask(content));
    expect(answer.choices[0].message.content === HELLO, answer);
  },
  async embeddings(url, key) {
    const answer = await client(url, key).embeddings.create({ model: "text-embedding-3-small", input: [HELLO, "Other"] });
    expect(answer.data.every((each) => each.embedding.length === 1536));
  },
  async responses(url, key) {
    const answer = await client(url, key).responses.create({ model: "gpt-4o", input: HELLO });
    expect(answer.output_text === HELLO, answer);
    const kinds = [];
    for await (const event of await client(url, key).responses.create({ model: "gpt-4o", input: HELLO, stream: true }))
      kinds.push(event.type);
    expect(kinds.at(-1) === "response.completed", kinds);
  },
  async errors(url, key) {
    const error = await raises(OpenAI.RateLimitError, () => client(url, key).chat.completions.create(ask(HELLO)));
    expect(error.code === "insufficient_quota", error);
  },
  async cancellation(url, key) {
    const pieces = [];
    const stream = await client(url, key).chat.completions.create({ ...ask(LONG), stream: true });
    for await (const chunk of stream) {
      pieces.push(chunk.choices[0].delta.content ?? "");
      if (pieces.length === PIECES) break;
    }
    stream.controller.abort();
    return { text: pieces.join("") };
  },
});
