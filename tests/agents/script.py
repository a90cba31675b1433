"""What the scripted model does: a list of steps, one for each reply."""

import json
import re
from dataclasses import dataclass, field

from next_line import next_call
from view import Tool


class CannotGoOn(Exception):
    """The view does not have what the step needs: a finding, not a fault of the harness."""


@dataclass(frozen=True)
class ToolUse:
    """The reply "call this tool"."""

    id: str
    tool: Tool
    arguments: dict

    @property
    def arguments_json(self):
        return json.dumps(self.arguments)


@dataclass(frozen=True)
class Text:
    """The reply that ends the model's turn."""

    id: str
    text: str


@dataclass(frozen=True)
class Call:
    """Calls one of our tools.

    `taken` maps an argument to a pattern with one group. The value is its last match in what our
    tools have returned: the number of a job, say. A pattern in a list makes a list. `{work}` in an
    argument is the agent's directory.
    """

    tool: str
    arguments: dict = field(default_factory=dict)
    taken: dict = field(default_factory=dict)

    def reply(self, view, reply_id, work):
        arguments = {
            name: value.replace("{work}", work) if isinstance(value, str) else value
            for name, value in self.arguments.items()
        }
        for name, pattern in self.taken.items():
            if isinstance(pattern, list):
                arguments[name] = [last_match(one, view) for one in pattern]
            else:
                arguments[name] = last_match(pattern, view)
        return use(view, reply_id, self.tool, arguments)


@dataclass(frozen=True)
class FollowNext:
    """Makes the call that stands in the last `next:` line that the model was shown."""

    def reply(self, view, reply_id, _work):
        if not view.texts:
            raise CannotGoOn("no result with a `next:` line yet")
        try:
            tool, arguments = next_call(view.texts[-1])
        except ValueError as error:
            raise CannotGoOn(str(error)) from error
        return use(view, reply_id, tool, arguments)


@dataclass(frozen=True)
class Builtin:
    """Calls a tool of the agent itself."""

    tool: str
    arguments: dict

    def reply(self, view, reply_id, _work):
        for tool in view.tools:
            if tool.name == self.tool:
                return ToolUse(reply_id, tool, self.arguments)
        raise CannotGoOn(f"the agent has no tool {self.tool}")


@dataclass(frozen=True)
class Say:
    """Ends the turn with a text, which must be unique in its script."""

    text: str

    def reply(self, _view, reply_id, _work):
        return Text(reply_id, self.text)


def use(view, reply_id, name, arguments):
    """A call of our tool, refused here if its own schema would refuse it."""
    tool = view.find(name)
    if tool is None:
        raise CannotGoOn(f"the model was not told of a tool {name}")
    if tool.schema:
        unknown = arguments.keys() - tool.schema.get("properties", {}).keys()
        missing = set(tool.schema.get("required", [])) - arguments.keys()
        if unknown or missing:
            raise CannotGoOn(f"{name}: not in its schema: {unknown}; required: {missing}")
    return ToolUse(reply_id, tool, arguments)


def last_match(pattern, view):
    found = re.findall(pattern, "\n".join(view.texts))
    if not found:
        raise CannotGoOn(f"nothing that matches {pattern} in {view.texts}")
    return int(found[-1]) if found[-1].isdigit() else found[-1]


def position(steps, view):
    """How many steps the conversation holds already.

    Counted anew for each request, so that a request that an agent repeats gets the same reply. A
    text that the agent writes in the model's name is not one of the script's.
    """
    texts = {step.text for step in steps if isinstance(step, Say)}
    return len(view.exchanges) + sum(text.strip() in texts for text in view.said)
