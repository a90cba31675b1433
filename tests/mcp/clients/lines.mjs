// What the Node clients have in common; the orders are described in lines.py.

import { createInterface } from "node:readline";

const write = (answer) => process.stdout.write(JSON.stringify(answer) + "\n");

async function perform(client, order) {
  switch (order.op) {
    case "tools":
      return await client.listTools();
    case "call":
      return await client.callTool({ name: order.name, arguments: order.arguments });
    case "resources":
      return await client.listResources();
    case "read":
      return await client.readResource({ uri: order.uri });
    case "prompts":
      return await client.listPrompts();
    case "prompt":
      return await client.getPrompt({ name: order.name, arguments: order.arguments });
    default:
      throw new Error(`unknown order ${order.op}`);
  }
}

/** Executes orders until stdin ends. */
export async function serve(client, negotiated) {
  write({ result: negotiated });
  for await (const line of createInterface({ input: process.stdin })) {
    try {
      write({ result: await perform(client, JSON.parse(line)) });
    } catch (error) {
      write({ error: { code: error.code ?? null, message: String(error.message ?? error) } });
    }
  }
  await client.close();
}
