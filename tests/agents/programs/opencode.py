"""opencode."""

from programs.program import KEY, PROMPT, TOKEN_VARIABLE, Launch, Program, write_json

# A provider of the user's own is asked through Chat Completions.
MODEL = {
    "npm": "@ai-sdk/openai-compatible",
    "name": "scripted",
    "models": {"scripted": {"name": "scripted", "limit": {"context": 200000, "output": 8000}}},
}


class Opencode(Program):
    name = "opencode"

    def headless(self, setting):
        options = {"baseURL": f"{setting.model_url}/v1", "apiKey": KEY}
        write_json(setting.work / "opencode.json", {
            "$schema": "https://opencode.ai/config.json",
            "autoupdate": False,
            "share": "disabled",
            "model": "scripted/scripted",
            "permission": "allow",
            "provider": {"scripted": MODEL | {"options": options}},
            "mcp": {"cc-executor": entry(setting)},
        })
        return Launch(
            ["opencode", "run", "--format", "json", PROMPT],
            {"OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_DISABLE_MODELS_FETCH": "1"},
        )


def entry(setting):
    if setting.transport == "stdio":
        return {"type": "local", "command": ["cc-executor", "mcp"], "enabled": True}
    headers = {"Authorization": f"Bearer {{env:{TOKEN_VARIABLE}}}"}
    url = f"http://{setting.address}/mcp"
    return {"type": "remote", "url": url, "headers": headers, "enabled": True}
