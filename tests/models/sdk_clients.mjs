// The SDKs of JavaScript, unchanged, with a gateway's URL and key.
// Usage: node sdk_clients.mjs URL KEY; prints one JSON object.
import Anthropic from "@anthropic-ai/sdk";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, streamText } from "ai";
import OpenAI from "openai";

const [url, key] = process.argv.slice(2);
const messages = [{ role: "user", content: "hello" }];
const found = {};

const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });
const chat = await openai.chat.completions.create({ model: "team-fast", messages });
found.chat = chat.choices[0].message.content;
found.chat_stream = "";
for await (const chunk of await openai.chat.completions.create({ model: "team-fast", messages, stream: true })) {
  found.chat_stream += chunk.choices[0]?.delta.content ?? "";
}
found.responses = (await openai.responses.create({ model: "mock/mock", input: "hello" })).output_text;
found.embedding = (await openai.embeddings.create({ model: "mock/mock", input: "hello" })).data[0].embedding;
found.models = [];
for await (const model of openai.models.list()) found.models.push(model.id);
try {
  await openai.chat.completions.create({ model: "nobody/nothing", messages });
} catch (error) {
  found.unknown = [error.constructor.name, error.code];
}

const anthropic = new Anthropic({ baseURL: url, apiKey: key, maxRetries: 0 });
const message = await anthropic.messages.create({ model: "claude/mock", max_tokens: 64, messages });
found.messages = message.content[0].text;
found.messages_stream = await anthropic.messages
  .stream({ model: "claude/mock", max_tokens: 64, messages })
  .finalText();
found.count_tokens = (await anthropic.messages.countTokens({ model: "claude/mock:input=9", messages })).input_tokens;

const vercel = createOpenAI({ baseURL: `${url}/v1`, apiKey: key });
found.ai_sdk = (await generateText({ model: vercel("mock/mock"), prompt: "hello" })).text;
found.ai_sdk_stream = "";
for await (const part of streamText({ model: vercel.chat("team-fast"), prompt: "hello" }).textStream) {
  found.ai_sdk_stream += part;
}

console.log(JSON.stringify(found));
