// Reads every list with a TypeScript SDK, as strictly as it does, and makes the calls it is given.
// `given`: {sdk: "v1" | "v2", family, endpoint, key, calls: [[method, params], …]}. One JSON line.

const given = JSON.parse(process.argv[2]);
const [{ Client }, { StreamableHTTPClientTransport }] =
  given.sdk === "v1"
    ? await Promise.all([
        import("@modelcontextprotocol/sdk/client/index.js"),
        import("@modelcontextprotocol/sdk/client/streamableHttp.js"),
      ])
    : await import("@modelcontextprotocol/client").then((sdk) => [sdk, sdk]);

const options = given.family === "modern" ? { versionNegotiation: { mode: "auto" } } : {};
const client = new Client({ name: "strict", version: "1" }, options);
const requestInit = { headers: { Authorization: `Bearer ${given.key}` } };
await client.connect(new StreamableHTTPClientTransport(new URL(given.endpoint), { requestInit }));

const told = { lists: {}, calls: [] };
const lists = {
  tools: ["listTools", "name"],
  prompts: ["listPrompts", "name"],
  resources: ["listResources", "uri"],
  resourceTemplates: ["listResourceTemplates", "uriTemplate"],
};
for (const [member, [list, key]] of Object.entries(lists)) {
  try {
    told.lists[member] = (await client[list]())[member].map((each) => each[key]);
  } catch (error) {
    told.lists[member] = String(error?.message ?? error).slice(0, 500);
  }
}
for (const [method, params] of given.calls ?? []) {
  try {
    told.calls.push({ result: await client[method](params) });
  } catch (error) {
    told.calls.push({ error: String(error?.message ?? error).slice(0, 500) });
  }
}
console.log(JSON.stringify(told));
process.exit(0);
