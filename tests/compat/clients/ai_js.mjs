// The AI SDK: the ai and @ai-sdk/openai packages of npm.
import { createOpenAI } from "@ai-sdk/openai";
import { APICallError, RetryError, embedMany, generateText, jsonSchema, streamText, tool } from "ai";
import { HELLO, LONG, PIECES, PIXEL, SCHEMA, WEATHER, expect, raises, run } from "./reporting.mjs";

const provider = (url, key) => createOpenAI({ baseURL: url + "/v1", apiKey: key });
const model = (url, key) => provider(url, key).chat("gpt-4o");

await run({
  async chat(url, key) {
    const answer = await generateText({ model: model(url, key), prompt: HELLO });
    expect(answer.text === HELLO, answer.text);
  },
  async streaming(url, key) {
    let text = "";
    for await (const piece of streamText({ model: model(url, key), prompt: HELLO }).textStream) text += piece;
    expect(text === HELLO, text);
  },
  async tools(url, key) {
    const get_weather = tool({ description: "The weather", inputSchema: jsonSchema(SCHEMA) });
    const answer = await generateText({ model: model(url, key), prompt: WEATHER, tools: { get_weather } });
    expect(SCHEMA.required.every((name) => name in answer.toolCalls[0].input), answer.toolCalls);
  },
  async images(url, key) {
    const content = [{ type: "text", text: HELLO }, { type: "image", image: PIXEL }];
    const answer = await generateText({ model: model(url, key), messages: [{ role: "user", content }] });
    expect(answer.text === HELLO, answer.text);
  },
  async embeddings(url, key) {
    const embedder = provider(url, key).textEmbeddingModel("text-embedding-3-small");
    const answer = await embedMany({ model: embedder, values: [HELLO, "Other"] });
    expect(answer.embeddings.length === 2);
  },
  async responses(url, key) {
    const answer = await generateText({ model: provider(url, key).responses("gpt-4o"), prompt: HELLO });
    expect(answer.text === HELLO, answer.text);
  },
  async errors(url, key) {
    const ask = () => generateText({ model: model(url, key), prompt: HELLO });
    const error = await raises(Error, ask);
    const last = RetryError.isInstance(error) ? error.lastError : error;
    expect(APICallError.isInstance(last) && last.statusCode === 429, String(last));
    expect(JSON.parse(last.responseBody).error.code === "insufficient_quota", last.responseBody);
  },
  async cancellation(url, key) {
    const pieces = [];
    const abort = new AbortController();
    const stream = streamText({ model: model(url, key), prompt: LONG, abortSignal: abort.signal });
    for await (const piece of stream.textStream) {
      pieces.push(piece);
      if (pieces.length === PIECES) break;
    }
    abort.abort();
    return { text: pieces.join("") };
  },
});
