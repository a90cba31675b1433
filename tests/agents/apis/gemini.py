"""Gemini's generateContent, as Gemini CLI uses it."""

from script import ToolUse
from view import Exchange, Tool, View, joined


def answers(path):
    return path.endswith("generateContent") or path.endswith("streamGenerateContent")


def read(body):
    exchanges, said = [], []
    for content in body["contents"]:
        for part in content["parts"]:
            if "functionCall" in part:
                call = part["functionCall"]
                exchanges.append(Exchange(call["name"], call.get("args", {}), None))
            elif "functionResponse" in part:
                answer(exchanges, part["functionResponse"])
            elif "text" in part and content["role"] == "model":
                said.append(part["text"])
    tools = [
        Tool(function["name"], description=function.get("description", ""),
             schema=function.get("parametersJsonSchema", {}))
        for group in body.get("tools", [])
        for function in group.get("functionDeclarations", [])
    ]
    return View(tools, exchanges, said, joined(body))


def answer(exchanges, response):
    """Gives the response to the first call of its name that has none."""
    for number, exchange in enumerate(exchanges):
        if exchange.tool == response["name"] and exchange.text is None:
            text = joined(response["response"])
            exchanges[number] = Exchange(exchange.tool, exchange.arguments, text)
            return


def write(reply, _body):
    if isinstance(reply, ToolUse):
        part = {"functionCall": {"name": reply.tool.name, "args": reply.arguments}}
    else:
        part = {"text": reply.text}
    candidate = {
        "content": {"role": "model", "parts": [part]}, "finishReason": "STOP", "index": 0,
    }
    usage = {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}
    return [("", {"candidates": [candidate], "usageMetadata": usage})]
