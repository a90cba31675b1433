"""The package `mcp` 1.30 as a client over a WebSocket: `URL`, with the token in MCP_TOKEN.

Its WebSocket transport has no parameter for headers, so the connect function that it uses gets them.
"""

import asyncio
import functools
import os
import sys
import warnings

warnings.filterwarnings("ignore", message="The WebSocket client transport is deprecated")

import mcp.client.websocket as transport
from lines import dump, serve
from mcp import ClientSession

HEADERS = {"Authorization": f"Bearer {os.environ['MCP_TOKEN']}"}
transport.ws_connect = functools.partial(
    transport.ws_connect, additional_headers=HEADERS, proxy=None
)


async def main():
    async with transport.websocket_client(sys.argv[1]) as (read, write):
        async with ClientSession(read, write) as session:
            await serve(session, dump(await session.initialize()))


asyncio.run(main())
