"""Gemini CLI."""

from programs.program import KEY, PROMPT, TOKEN_VARIABLE, Launch, Program, write_json


class Gemini(Program):
    name = "gemini"

    def headless(self, setting):
        write_json(setting.home / ".gemini" / "settings.json", {
            "security": {
                "auth": {"selectedType": "gemini-api-key"}, "folderTrust": {"enabled": False},
            },
            "privacy": {"usageStatisticsEnabled": False},
            "telemetry": {"enabled": False},
            "general": {"enableAutoUpdate": False},
            "mcpServers": {"cc-executor": entry(setting)},
        })
        argv = ["gemini", "--prompt", PROMPT, "--yolo", "--model", "gemini-2.5-pro"]
        return Launch(argv, {
            "GEMINI_API_KEY": KEY,
            "GOOGLE_GEMINI_BASE_URL": setting.model_url,
            "GEMINI_CLI_TRUST_WORKSPACE": "true",
        })


def entry(setting):
    if setting.transport == "stdio":
        return {"command": "cc-executor", "args": ["mcp"], "trust": True}
    headers = {"Authorization": f"Bearer ${TOKEN_VARIABLE}"}
    return {"httpUrl": f"http://{setting.address}/mcp", "headers": headers, "trust": True}
