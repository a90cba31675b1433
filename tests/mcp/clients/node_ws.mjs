// `@modelcontextprotocol/sdk` as a client over a WebSocket: `URL`, with the token in MCP_TOKEN.
// Its transport makes the socket itself and passes no headers, so the socket's class gets them here.

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { WebSocketClientTransport } from "@modelcontextprotocol/sdk/client/websocket.js";

import { serve } from "./lines.mjs";

const headers = { authorization: `Bearer ${process.env.MCP_TOKEN}` };
globalThis.WebSocket = class extends globalThis.WebSocket {
  constructor(url, protocols) {
    super(url, { protocols: [protocols].flat(), headers });
  }
};

const client = new Client({ name: "node-ws", version: "1.0.0" });
await client.connect(new WebSocketClientTransport(new URL(process.argv[2])));
await serve(client, {
  serverInfo: client.getServerVersion(),
  capabilities: client.getServerCapabilities(),
  instructions: client.getInstructions(),
});
