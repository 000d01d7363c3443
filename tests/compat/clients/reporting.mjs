// What every JavaScript client does alike: run the cells that standard input names, print one JSON line for each.

export const HELLO = "Hello there, how are you?";
export const LONG = "Count with me: " + Array.from({ length: 89 }, (_, n) => `number ${n + 1},`).join(" ");
export const WEATHER = "What is the weather in Paris?";
export const SCHEMA = {
  type: "object",
  properties: { city: { type: "string" }, days: { type: "integer" } },
  required: ["city", "days"],
};
export const CHAT_TOOL = {
  type: "function",
  function: { name: "get_weather", description: "The weather", parameters: SCHEMA },
};
export const PIXEL =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
export const PIXEL_URL = `data:image/png;base64,${PIXEL}`;
export const PIECES = 4;

export function expect(condition, seen = "") {
  if (!condition) throw new Error(`not what was expected: ${JSON.stringify(seen)}`);
}

export async function raises(wanted, call) {
  let answer;
  try {
    answer = await call();
  } catch (error) {
    if (error instanceof wanted) return error;
    throw error;
  }
  throw new Error(`no ${wanted.name}, but ${JSON.stringify(answer)}`);
}

export async function run(cells) {
  const chunks = [];
  for await (const chunk of process.stdin) chunks.push(chunk);
  for (const [name, { url, key }] of Object.entries(JSON.parse(Buffer.concat(chunks).toString()))) {
    const result = { cell: name };
    try {
      Object.assign(result, (await cells[name](url, key)) ?? {});
    } catch (error) {
      result.error = String(error.stack ?? error);
    }
    console.log("@@" + JSON.stringify(result));
  }
  process.exit(0);
}
