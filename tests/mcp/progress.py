"""A long call that a client keeps alive by asking for progress: it is told every 15 seconds."""

import asyncio
import json
import sys
import time

from conversation import nonce
from harness import CEILING, Server
from websocket import opened, request

# Between two reports of progress, seconds.
INTERVAL = 15.0


async def progress_comes_with_the_last_line(server):
    async with await opened(server) as link:
        word = nonce()
        call = {
            "name": "run",
            "arguments": {"command": f"echo first; echo working on {word}; sleep 17; echo done {word}", "wait_s": 60},
            "_meta": {"progressToken": "p1"},
        }
        began = time.monotonic()
        await request(link, 1, "tools/call", call)
        told = []
        while (message := json.loads(await link.recv())).get("id") != 1:
            assert message["method"] == "notifications/progress", message
            assert message["params"]["progressToken"] == "p1", message
            told.append((time.monotonic() - began, message["params"]))
        assert told and INTERVAL - 2 < told[0][0] < INTERVAL + 5, told
        assert f"working on {word}" in told[0][1]["message"], told
        values = [params["progress"] for _, params in told]
        assert values == sorted(set(values)), values
        assert f"done {word}" in message["result"]["content"][0]["text"], message


def main(binary):
    with Server(binary) as server:
        asyncio.run(asyncio.wait_for(progress_comes_with_the_last_line(server), 2 * CEILING))


if __name__ == "__main__":
    main(sys.argv[1])
