"""OpenAI Chat Completions, as opencode uses it for a provider of the user's."""

import json

from script import ToolUse
from view import Exchange, Tool, View, content_text, joined


def answers(path):
    return path.endswith("/chat/completions")


def read(body):
    messages = body["messages"]
    results = {
        message["tool_call_id"]: content_text(message["content"])
        for message in messages if message["role"] == "tool"
    }
    exchanges, said = [], []
    for message in messages:
        if message["role"] != "assistant":
            continue
        if message.get("content"):
            said.append(content_text(message["content"]))
        for call in message.get("tool_calls", []):
            function = call["function"]
            arguments = json.loads(function["arguments"])
            exchanges.append(Exchange(function["name"], arguments, results.get(call["id"])))
    functions = [tool["function"] for tool in body.get("tools", [])]
    tools = [
        Tool(function["name"], description=function.get("description", ""),
             schema=function.get("parameters", {}))
        for function in functions
    ]
    return View(tools, exchanges, said, joined(body))


def write(reply, body):
    if isinstance(reply, ToolUse):
        function = {"name": reply.tool.name, "arguments": reply.arguments_json}
        call = {"index": 0, "id": reply.id, "type": "function", "function": function}
        delta = {"role": "assistant", "content": None, "tool_calls": [call]}
        reason = "tool_calls"
    else:
        delta = {"role": "assistant", "content": reply.text}
        reason = "stop"
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    chunk = {
        "id": f"chat_{reply.id}", "object": "chat.completion.chunk", "created": 0,
        "model": body["model"],
    }
    first = chunk | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    last = chunk | {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}],
                    "usage": usage}
    return [("", first), ("", last), ("", "[DONE]")]
