"""Claude Code."""

from programs.program import KEY, PROMPT, TOKEN_VARIABLE, Launch, Program, write_json
from script import Builtin

# Its model knows a tool of ours by its name alone until it has searched for it.
TOOLS = ("run", "wait", "read_output", "send_input", "query_history", "search_output")


class Claude(Program):
    name = "claude"
    transports = ("http", "stdio", "ws")
    first_steps = (
        Builtin("ToolSearch", {
            "query": "select:" + ",".join(f"mcp__cc-executor__{tool}" for tool in TOOLS),
            "max_results": len(TOOLS),
        }),
    )

    def headless(self, setting):
        launch = self.interactive(setting)
        argv = [*launch.argv, "--print", PROMPT, "--output-format", "stream-json", "--verbose"]
        return Launch(argv, launch.environment)

    def interactive(self, setting):
        """For a terminal; without the questions of a first start."""
        write_json(setting.home / ".claude.json", {
            "hasCompletedOnboarding": True,
            "theme": "dark",
            "customApiKeyResponses": {"approved": [KEY], "rejected": []},
            "projects": {str(setting.work): {
                "hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True,
            }},
        })
        configuration = setting.work / ".mcp.json"
        write_json(configuration, {"mcpServers": {"cc-executor": entry(setting)}})
        argv = [
            "claude", "--mcp-config", str(configuration), "--strict-mcp-config",
            "--permission-mode", "default", "--allowedTools", "mcp__cc-executor__*,ToolSearch",
        ]
        return Launch(argv, {
            "ANTHROPIC_BASE_URL": setting.model_url,
            "ANTHROPIC_API_KEY": KEY,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
        })


def entry(setting):
    if setting.transport == "stdio":
        return {"command": "cc-executor", "args": ["mcp"]}
    url = {
        "http": f"http://{setting.address}/mcp",
        "ws": f"ws://{setting.address}/ws/mcp",
    }[setting.transport]
    headers = {"Authorization": f"Bearer ${{{TOKEN_VARIABLE}}}"}
    return {"type": setting.transport, "url": url, "headers": headers}
