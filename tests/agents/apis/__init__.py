"""The APIs through which agents ask their models.

Each module has `answers(path)`, `read(body)`, which makes a View of a request, and
`write(reply, body)`, which makes the events of a stream of the scripted model's reply.
"""

from apis import anthropic, chat, gemini, responses

ALL = (anthropic, responses, chat, gemini)
