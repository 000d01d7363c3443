// The @anthropic-ai/sdk package of npm.
import Anthropic from "@anthropic-ai/sdk";
import { HELLO, LONG, PIECES, PIXEL, SCHEMA, WEATHER, expect, raises, run } from "./reporting.mjs";

const client = (url, key) => new Anthropic({ baseURL: url, apiKey: key });
const ask = (content) => ({ model: "claude-sonnet-4-5", max_tokens: 200, messages: [{ role: "user", content }] });

await run({
  async chat(url, key) {
    const answer = await client(url, key).messages.create(ask(HELLO));
    expect(answer.content[0].text === HELLO, answer);
  },
  async streaming(url, key) {
    const answer = await client(url, key).messages.stream(ask(HELLO)).finalMessage();
    expect(answer.content[0].text === HELLO, answer);
  },
  async tools(url, key) {
    const tools = [{ name: "get_weather", input_schema: SCHEMA }];
    const answer = await client(url, key).messages.create({ ...ask(WEATHER), tools });
    expect(SCHEMA.required.every((name) => name in answer.content[0].input), answer);
  },
  async images(url, key) {
    const source = { type: "base64", media_type: "image/png", data: PIXEL };
    const answer = await client(url, key).messages.create(ask([{ type: "image", source }, { type: "text", text: HELLO }]));
    expect(answer.content[0].text === HELLO, answer);
  },
  async errors(url, key) {
    const error = await raises(Anthropic.RateLimitError, () => client(url, key).messages.create(ask(HELLO)));
    expect(error.status === 429, error);
  },
  async cancellation(url, key) {
    const pieces = [];
    const stream = await client(url, key).messages.create({ ...ask(LONG), stream: true });
    for await (const event of stream) {
      if (event.type === "content_block_delta") pieces.push(event.delta.text);
      if (pieces.length === PIECES) break;
    }
    stream.controller.abort();
    return { text: pieces.join("") };
  },
});
