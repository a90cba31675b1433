"""What the Python clients have in common: orders come as lines of JSON on stdin, answers leave on stdout.

An order is `{"op": "tools"}`, `{"op": "call", "name", "arguments"}`, `{"op": "resources"}`,
`{"op": "read", "uri"}`, `{"op": "prompts"}` or `{"op": "prompt", "name"}`. The answer is
`{"result": …}` as the server sent it, or `{"error": {code, message}}`. The first line tells what the
connection has negotiated.
"""

import asyncio
import json
import sys


def dump(model):
    """A model of the SDK as the JSON that was on the wire."""
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def write(answer):
    print(json.dumps(answer), flush=True)


async def perform(client, order):
    op = order["op"]
    if op == "tools":
        return await client.list_tools()
    if op == "call":
        return await client.call_tool(order["name"], order["arguments"])
    if op == "resources":
        return await client.list_resources()
    if op == "read":
        return await client.read_resource(order["uri"])
    if op == "prompts":
        return await client.list_prompts()
    assert op == "prompt", order
    return await client.get_prompt(order["name"], order.get("arguments"))


async def serve(client, negotiated):
    """Executes orders until stdin ends."""
    write({"result": negotiated})
    while line := await asyncio.to_thread(sys.stdin.readline):
        try:
            write({"result": dump(await perform(client, json.loads(line)))})
        except Exception as error:  # whatever the client makes of a refusal is its answer
            refusal = getattr(error, "error", None)
            code = getattr(refusal, "code", None)
            write({"error": {"code": code, "message": getattr(refusal, "message", repr(error))}})
