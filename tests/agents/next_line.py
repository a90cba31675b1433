"""Reads the last line of our tools' results: `next: TOOL {JSON}`, one call ready to use."""

import json
import re

CALL = re.compile(r"next: (\w+) (?=\{)")


def next_call(text):
    """The tool and its arguments; raises `ValueError` where there is no such line."""
    found = list(CALL.finditer(text))
    if not found:
        raise ValueError(f"no `next:` line with a call in: {text[-300:]}")
    arguments = text[found[-1].end():]
    if arguments.startswith('{\\"'):
        # Gemini CLI shows the text of an error inside of JSON: quotes and backslashes are escaped.
        arguments = re.sub(r'\\(["\\])', r"\1", arguments)
    return found[-1][1], json.JSONDecoder().raw_decode(arguments)[0]
