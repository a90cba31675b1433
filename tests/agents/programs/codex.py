"""Codex."""

from programs.program import PROMPT, TOKEN_VARIABLE, Launch, Program
from script import Builtin

# To a model that it knows by this name, Codex lists no tool of an MCP server: the model searches
# for them, by words (BM25).
MODEL = "gpt-5.5"
SEARCH = Builtin("tool_search", {
    "query": "run a shell command in the background, wait, read the log, query the history",
    "limit": 9,
})

CONFIGURATION = """\
model = "{model}"
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
    first_steps = (SEARCH,)

    def headless(self, setting):
        configuration = setting.home / ".codex" / "config.toml"
        configuration.parent.mkdir(parents=True, exist_ok=True)
        text = CONFIGURATION.format(
            model=MODEL, model_url=setting.model_url, entry=entry(setting)
        )
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
