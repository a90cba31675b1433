"""`fastmcp` with `fastmcp-tasks` as a client of tasks: `URL`, with the token in MCP_TOKEN.

Orders are lines of JSON: `{"op": "create", "name", "arguments"}` answers with the task, `get`, `cancel`
and `result` take `{"task"}`, which may be a task of another client. `call` leaves all of that to the
client: it answers with the result, however long the task takes.
"""

import asyncio
import json
import os
import sys

import fastmcp_tasks.client as tasks
from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport
from lines import dump, write


async def answers_yes(message, response_type, params, context):
    """What the person at the client types into the form."""
    fields = params.requested_schema["properties"]
    return {name: "yes" for name in fields}


async def perform(client, order):
    op, session = order["op"], client.session
    if op == "create":
        task = await tasks.call_tool_task(client, order["name"], order["arguments"])
        return dump(task.create_result)
    if op == "get":
        return dump(await tasks._send_get(session, order["task"]))
    if op == "cancel":
        await tasks._send_cancel(session, order["task"])
        return {}
    if op == "result":
        final = await tasks._drive_to_terminal(session, order["task"], client._elicitation_callback)
        return dump(final)
    assert op == "call", order
    result = await client.call_tool(order["name"], order["arguments"], raise_on_error=False)
    return {"content": [dump(block) for block in result.content], "isError": result.is_error}


async def main():
    transport = StreamableHttpTransport(sys.argv[1], headers={"Authorization": f"Bearer {os.environ['MCP_TOKEN']}"})
    async with Client(transport, elicitation_handler=answers_yes) as client:
        write({"result": {}})
        while line := await asyncio.to_thread(sys.stdin.readline):
            try:
                write({"result": await perform(client, json.loads(line))})
            except Exception as error:  # whatever the client makes of a refusal is its answer
                write({"error": {"code": getattr(error, "code", None), "message": str(error) or repr(error)}})


asyncio.run(main())
