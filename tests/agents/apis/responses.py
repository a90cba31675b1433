"""OpenAI Responses, as Codex uses it."""

import json

from script import ToolUse
from view import Exchange, Tool, View, content_text, joined

# The tool with which a model searches for tools that are not listed; an item of its own kind.
SEARCH = "tool_search"


def answers(path):
    return path.endswith("/responses")


def read(body):
    items = body["input"]
    tools = list(listed(body.get("tools", [])))
    results = {}
    for item in items:
        if item.get("type") == "function_call_output":
            results[item["call_id"]] = content_text(item["output"])
        elif item.get("type") == "tool_search_output":
            found = list(listed(item["tools"]))
            results[item["call_id"]] = "\n".join(tool.name for tool in found)
            tools += found
    exchanges, said = [], []
    for item in items:
        if item.get("type") == "tool_search_call":
            exchanges.append(Exchange(SEARCH, item["arguments"], results.get(item["call_id"])))
        elif item.get("type") == "function_call":
            name = "__".join(part for part in (item.get("namespace"), item["name"]) if part)
            arguments = json.loads(item["arguments"])
            exchanges.append(Exchange(name, arguments, results.get(item["call_id"])))
        elif item.get("type") == "message" and item["role"] == "assistant":
            said.append(content_text(item["content"]))
    return View(tools, exchanges, said, joined(body))


def listed(tools):
    """The functions of a list of tools; those of an MCP server stand in a namespace."""
    for tool in tools:
        if tool["type"] == SEARCH:
            yield Tool(SEARCH)
        elif tool["type"] == "function":
            yield one(tool, "")
        elif tool["type"] == "namespace":
            for inner in tool["tools"]:
                yield one(inner, tool["name"])


def one(tool, namespace):
    return Tool(tool["name"], namespace, tool.get("description", ""), tool.get("parameters", {}))


def write(reply, body):
    if isinstance(reply, ToolUse) and reply.tool.name == SEARCH:
        item = {
            "type": "tool_search_call", "id": f"ts_{reply.id}", "call_id": reply.id,
            "execution": "client", "arguments": reply.arguments, "status": "completed",
        }
    elif isinstance(reply, ToolUse):
        item = {
            "type": "function_call", "id": f"fc_{reply.id}", "call_id": reply.id,
            "name": reply.tool.name, "arguments": reply.arguments_json, "status": "completed",
        }
        if reply.tool.namespace:
            item["namespace"] = reply.tool.namespace
    else:
        part = {"type": "output_text", "text": reply.text, "annotations": []}
        item = {
            "type": "message", "id": f"msg_{reply.id}", "role": "assistant",
            "content": [part], "status": "completed",
        }
    response = {
        "id": f"resp_{reply.id}", "object": "response", "model": body["model"],
        "status": "in_progress", "output": [],
    }
    usage = {
        "input_tokens": 1, "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 1, "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 2,
    }
    finished = response | {"status": "completed", "output": [item], "usage": usage}
    events = [
        {"type": "response.created", "response": response},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": finished},
    ]
    return [(event["type"], event) for event in events]
