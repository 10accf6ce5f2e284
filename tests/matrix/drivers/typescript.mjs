// The TypeScript SDK v1: `Client` over streamable HTTP. Node finds the SDK from the directory this
// program is copied to before it runs.

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import {
  CallToolResultSchema,
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  ResourceUpdatedNotificationSchema,
} from "@modelcontextprotocol/sdk/types.js";

const given = JSON.parse(process.argv[2]);
const question = `What is ${given.nonce}?`;
const name = (own) => `${given.server}__${own}`;
const ACTION_MS = 25_000;
const UNDER_WAY_MS = 1_000;

function same(found, wanted, detail) {
  const [left, right] = [JSON.stringify(found), JSON.stringify(wanted)];
  if (left !== right) throw new Error(`${left} instead of ${right}`);
  return detail ?? String(left).slice(0, 60);
}

async function connected(play) {
  const capabilities = { elicitation: {}, sampling: {} };
  const client = new Client({ name: "matrix", version: "1.0.0" }, { capabilities });
  client.setRequestHandler(ElicitRequestSchema, (request) => {
    same(request.params.message, question);
    return { action: "accept", content: { response: given.nonce } };
  });
  client.setRequestHandler(CreateMessageRequestSchema, (request) => {
    same(request.params.messages[0].content.text, question);
    const content = { type: "text", text: given.nonce };
    return { role: "assistant", content, model: "fixture" };
  });
  const headers = { Authorization: `Bearer ${given.key}` };
  const url = new URL(given.endpoint);
  const transport = new StreamableHTTPClientTransport(url, { requestInit: { headers } });
  await client.connect(transport);
  same(transport.protocolVersion, given.family);
  try {
    return await play(client);
  } finally {
    await client.close();
  }
}

async function uriOf(client, own) {
  const listed = (await client.listResources()).resources.map((resource) => resource.uri);
  const marked = `${given.server}+${own}`;
  if (listed.includes(marked)) return marked;
  if (!listed.includes(own)) throw new Error(`${own} is not listed`);
  return own;
}

const text = (result) => result.content[0].text;
const reference = () => ({ type: "ref/prompt", name: name("test_prompt_with_arguments") });

const plays = {
  list: async (client) => {
    const names = [];
    let cursor;
    do {
      const page = await client.listTools({ cursor });
      names.push(...page.tools.map((tool) => tool.name));
      cursor = page.nextCursor;
    } while (cursor);
    const ours = names.filter((each) => each.startsWith(name("")));
    for (const own of ["test_simple_text", "test_image_content", "test_elicitation", "test_sleep"])
      if (!ours.includes(name(own))) throw new Error(`not listed: ${own}`);
    return `${ours.length} tools`;
  },
  call: async (client) => {
    const call = { name: name("test_echo"), arguments: { text: given.nonce } };
    return same(text(await client.callTool(call)), given.nonce, "echoed");
  },
  progress: async (client) => {
    const heard = [];
    const onprogress = ({ progress, total }) => heard.push([progress, total]);
    const call = { name: name("test_tool_with_progress"), arguments: {} };
    await client.callTool(call, CallToolResultSchema, { onprogress });
    return same(heard, [[0, 100], [50, 100], [100, 100]], "0, 50, 100 of 100");
  },
  elicitation: async (client) => {
    const call = { name: name("test_elicitation"), arguments: { message: question } };
    const said = text(await client.callTool(call));
    if (!said.includes("action=accept") || !said.includes(given.nonce)) throw new Error(said);
    return "answered";
  },
  sampling: async (client) => {
    const call = { name: name("test_sampling"), arguments: { prompt: question } };
    return same(text(await client.callTool(call)), `LLM response: ${given.nonce}`, "answered");
  },
  read: async (client) => {
    const uri = await uriOf(client, "test://static-text");
    const got = await client.readResource({ uri });
    return same(got.contents[0].text, "This is the content of the static text resource.");
  },
  subscribe: async (client) => {
    const uri = await uriOf(client, "test://watched-resource");
    const updated = new Promise((resolve) => {
      client.setNotificationHandler(ResourceUpdatedNotificationSchema, ({ params }) =>
        resolve(params.uri),
      );
    });
    await client.subscribeResource({ uri });
    await client.callTool({ name: name("test_touch_watched_resource"), arguments: {} });
    return same(await updated, uri, "updated");
  },
  prompt: async (client) => {
    const filled = { arg1: given.nonce, arg2: "x" };
    const prompt = { name: name("test_prompt_with_arguments"), arguments: filled };
    const said = (await client.getPrompt(prompt)).messages[0].content.text;
    if (!said.includes(`arg1='${given.nonce}'`)) throw new Error(said);
    return "filled in";
  },
  completion: async (client) => {
    const asked = { ref: reference(), argument: { name: "arg1", value: "par" } };
    return same((await client.complete(asked)).completion.values, ["paris", "park", "party"]);
  },
  task: async (client) => {
    await client.listTools(); // the SDK learns from the list which tools run as tasks
    const work = { seconds: 0.5, label: given.nonce };
    const call = { name: name("slow_compute"), arguments: work };
    const options = { task: { ttl: 60_000 } };
    let made;
    const stream = client.experimental.tasks.callToolStream(call, CallToolResultSchema, options);
    for await (const message of stream) {
      if (message.type === "taskCreated") made = message.task.taskId;
      if (message.type === "error") throw message.error;
      if (message.type !== "result") continue;
      if (!made) throw new Error("no task was made");
      return same(text(message.result), `${given.nonce} done in 0.5 s`, "completed");
    }
    throw new Error("the stream ended without a result");
  },
  cancellation: async (client) => {
    const given_up = new AbortController();
    setTimeout(() => given_up.abort("enough"), UNDER_WAY_MS);
    const call = { name: name("test_sleep"), arguments: { seconds: 10 } };
    const options = { signal: given_up.signal };
    const ended = await client.callTool(call, CallToolResultSchema, options).then(
      () => "it ended by itself",
      () => "given up",
    );
    // The SDK does not wait until its notification is sent, and closing would drop it.
    await new Promise((resolve) => setTimeout(resolve, UNDER_WAY_MS));
    return same(ended, "given up", "given up");
  },
};

function bounded(promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("nothing came in time")), ACTION_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

function tell(action, outcome, detail) {
  console.log(JSON.stringify({ action, outcome, detail }));
}

for (const action of given.actions) {
  try {
    tell(action, "ok", await bounded(connected(plays[action])));
  } catch (error) {
    tell(action, "failed", String(error?.message ?? error).replace(/\s+/g, " ").slice(0, 300));
  }
}
process.exit(0);
