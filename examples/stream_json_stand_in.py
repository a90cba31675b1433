#!/usr/bin/env python3
"""Stands in for `claude -p --input-format stream-json --output-format stream-json`.

It speaks the same dialect: one JSON object a line, user messages on stdin, on stdout an `init`
message, then for each user message some `assistant` messages and one `result`. It needs no network
and no account, and it has just enough memory to show that a conversation is one process:

    Remember that the colour is blue.    ->  I will remember that the colour is blue.
    What is the colour?                  ->  The colour is blue.
    Count to 5.                          ->  1 2 3 4 5, slowly, a message each

End of file on stdin ends it with exit code 0; a line that is no user message, with 1.
"""

import json
import re
import sys
import time
import uuid

SESSION = str(uuid.uuid4())
COUNT_MAX = 100
# Between two numbers; the first argument, where there is one.
STEP_S = float(sys.argv[1]) if len(sys.argv) > 1 else 0.2


def emit(message):
    """One message is one line, written at once: whoever listens waits for it."""
    print(json.dumps({**message, "session_id": SESSION}), flush=True)


def assistant(text):
    content = [{"type": "text", "text": text}]
    emit({"type": "assistant", "message": {"role": "assistant", "content": content}})


def text_of(line):
    """The text of a user message, whose content is a string or a list of blocks."""
    message = json.loads(line)
    if message.get("type") != "user":
        raise ValueError(f"a message of type {message.get('type')!r} instead of user")
    content = message["message"]["content"]
    if isinstance(content, str):
        return content
    return "".join(block["text"] for block in content if block["type"] == "text")


class Mind:
    def __init__(self):
        self.facts = {}

    def answer(self, text):
        """Pieces of the answer, as they come to mind."""
        if known := re.fullmatch(r"Remember that (.+) is (.+)\.", text):
            self.facts[known[1]] = known[2]
            yield f"I will remember that {known[1]} is {known[2]}."
        elif asked := re.fullmatch(r"What is (.+)\?", text):
            fact = self.facts.get(asked[1])
            yield f"{asked[1].capitalize()} is {fact}." if fact else "I do not know."
        elif counted := re.fullmatch(r"Count to (\d+)\.", text):
            for number in range(1, min(int(counted[1]), COUNT_MAX) + 1):
                time.sleep(STEP_S)
                yield str(number)
        else:
            yield f"You said: {text}"


def main():
    mind = Mind()
    emit({"type": "system", "subtype": "init", "model": "stand-in", "tools": []})
    for turn, line in enumerate(sys.stdin, start=1):
        try:
            text = text_of(line)
        except (ValueError, KeyError, TypeError) as error:
            sys.exit(f"line {turn} is no user message: {error}")
        pieces = []
        for piece in mind.answer(text):
            assistant(piece)
            pieces.append(piece)
        emit({
            "type": "result", "subtype": "success", "is_error": False,
            "num_turns": turn, "result": " ".join(pieces),
        })


main()
