"""A connection to a server that asks one question after the other; for the benchmarks beside it."""

import json


class Refused(Exception):
    """An error reply; the first argument is its error object."""


class Session:
    def __init__(self, socket):
        self.socket, self.asked = socket, 0

    async def ask(self, method, **params):
        self.asked += 1
        question = {"jsonrpc": "2.0", "id": self.asked, "method": method, "params": params}
        await self.socket.send(json.dumps(question))
        while True:
            reply = json.loads(await self.socket.recv())
            if reply.get("id") == self.asked:
                if "error" in reply:
                    raise Refused(reply["error"])
                return reply["result"]
