"""Anthropic Messages, as Claude Code uses it."""

from script import ToolUse
from view import Exchange, Tool, View, content_text, joined


def answers(path):
    return path.endswith("/v1/messages")


def read(body):
    results, calls, said = {}, [], []
    for message in body["messages"]:
        content = message["content"]
        blocks = content if isinstance(content, list) else [{"type": "text", "text": content}]
        for block in blocks:
            if block["type"] == "tool_use":
                calls.append(block)
            elif block["type"] == "tool_result":
                results[block["tool_use_id"]] = content_text(block.get("content"))
            elif block["type"] == "text" and message["role"] == "assistant":
                said.append(block["text"])
    exchanges = [Exchange(call["name"], call["input"], results.get(call["id"])) for call in calls]
    tools = [
        Tool(tool["name"], description=tool.get("description", ""),
             schema=tool.get("input_schema", {}))
        for tool in body.get("tools", [])
    ]
    return View(tools, exchanges, said, joined(body))


def write(reply, body):
    if isinstance(reply, ToolUse):
        block = {"type": "tool_use", "id": reply.id, "name": reply.tool.name, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": reply.arguments_json}
        reason = "tool_use"
    else:
        block = {"type": "text", "text": ""}
        delta = {"type": "text_delta", "text": reply.text}
        reason = "end_turn"
    message = {
        "id": f"msg_{reply.id}", "type": "message", "role": "assistant",
        "model": body["model"], "content": [], "stop_reason": None, "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
    end = {"stop_reason": reason, "stop_sequence": None}
    events = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": end, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    ]
    return [(event["type"], event) for event in events]
