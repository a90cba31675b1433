"""Codex."""

from programs.program import PROMPT, TOKEN_VARIABLE, Launch, Program

CONFIGURATION = """\
model = "scripted"
model_provider = "scripted"
approval_policy = "never"

[model_providers.scripted]
name = "scripted"
base_url = "{model_url}/v1"
wire_api = "responses"
requires_openai_auth = false

[mcp_servers.cc-executor]
{entry}
default_tools_approval_mode = "approve"
"""


class Codex(Program):
    name = "codex"

    def headless(self, setting):
        configuration = setting.home / ".codex" / "config.toml"
        configuration.parent.mkdir(parents=True, exist_ok=True)
        text = CONFIGURATION.format(model_url=setting.model_url, entry=entry(setting))
        configuration.write_text(text, encoding="utf-8")
        return Launch([
            "codex", "exec", "--skip-git-repo-check", "--json", "--sandbox", "danger-full-access",
            PROMPT,
        ])


def entry(setting):
    if setting.transport == "stdio":
        return 'command = "cc-executor"\nargs = ["mcp"]'
    url = f"http://{setting.address}/mcp"
    return f'url = "{url}"\nbearer_token_env_var = "{TOKEN_VARIABLE}"'
