// `@modelcontextprotocol/client` 2.4 over HTTP: `URL MODE`, with the token in MCP_TOKEN.
// MODE is `legacy` (initialize) or `auto` (server/discover first).

import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

import { serve } from "./lines.mjs";

const [url, mode] = process.argv.slice(2);
const headers = { authorization: `Bearer ${process.env.MCP_TOKEN}` };
const client = new Client({ name: "node-http", version: "1.0.0" }, { versionNegotiation: { mode } });
await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } }));
await serve(client, {
  protocolVersion: client.getNegotiatedProtocolVersion?.(),
  serverInfo: client.getServerVersion(),
  capabilities: client.getServerCapabilities(),
  instructions: client.getInstructions(),
});
