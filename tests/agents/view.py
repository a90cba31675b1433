"""What a model is given to read: one request of an agent to its model, whatever the API."""

import re
from dataclasses import dataclass, field

# Agents change the server's name: `mcp__cc-executor__run`, `mcp_cc-executor_run`,
# `cc-executor_run`, and the namespace `mcp__cc_executor` with the tool `run`.
OURS = re.compile(r"(?:mcp_+)?cc[-_]executor_*")


@dataclass(frozen=True)
class Tool:
    """A tool as the agent lists it; `namespace` is empty where the API has none."""

    name: str
    namespace: str = ""
    description: str = ""
    schema: dict = field(default_factory=dict)

    @property
    def is_ours(self):
        return OURS.match(self.namespace or self.name) is not None

    @property
    def short(self):
        """Its name on our server."""
        return self.name if self.namespace else OURS.sub("", self.name, count=1)


@dataclass(frozen=True)
class Exchange:
    """A call that the model made, and the text that it got for it; None while there is none."""

    tool: str
    arguments: dict
    text: str | None

    @property
    def is_ours(self):
        return OURS.match(self.tool) is not None


@dataclass(frozen=True)
class View:
    """`said` are the model's own texts; `everything` is all text of the request."""

    tools: list[Tool]
    exchanges: list[Exchange]
    said: list[str]
    everything: str

    @property
    def ours(self):
        """The calls of our tools, in their order."""
        return [exchange for exchange in self.exchanges if exchange.is_ours]

    @property
    def texts(self):
        """What our tools have returned."""
        return [exchange.text for exchange in self.ours if exchange.text is not None]

    def find(self, short):
        """Our tool of this name: listed, or only named to the model (Claude Code does that)."""
        for tool in self.tools:
            if tool.is_ours and tool.short == short:
                return tool
        named = re.search(rf"\bmcp__cc[-_]executor__{re.escape(short)}\b", self.everything)
        return Tool(named[0]) if named else None

    def describe(self):
        """The view as a text for people."""
        ours = [tool for tool in self.tools if tool.is_ours]
        lines = [f"our tools in the list: {', '.join(tool.name for tool in ours) or 'none'}"]
        for exchange in self.exchanges:
            lines += [f"=== {exchange.tool} {exchange.arguments}", str(exchange.text)]
        return "\n".join([*lines, "=== said", *self.said, ""])


def strings(value):
    """All strings in a JSON value, in their order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)


def joined(value):
    """The strings of a JSON value, one below the other."""
    return "\n".join(strings(value))


def content_text(content):
    """The text of a message's or a result's content: a string, or a list of blocks."""
    if isinstance(content, str):
        return content
    return "\n".join(block.get("text") or block.get("tool_name", "") for block in content or [])
