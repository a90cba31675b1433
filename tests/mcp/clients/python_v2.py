"""The package `mcp` 2.3 as a client: `http URL MODE` with the token in MCP_TOKEN, or `stdio COMMAND…`.

MODE is `legacy` (initialize, 2025-11-25 and older) or `auto` (server/discover, 2026-07-28).
"""

import asyncio
import os
import sys

from lines import dump, serve
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client


async def run(server, mode):
    async with Client(server, mode=mode, cache=None) as client:
        info = client.server_info
        await serve(client, {
            "protocolVersion": client.protocol_version,
            "serverInfo": dump(info) if info else {},
            "capabilities": dump(client.server_capabilities),
            "instructions": client.instructions,
        })


async def main():
    kind, *rest = sys.argv[1:]
    if kind == "stdio":
        command, *arguments = rest
        await run(StdioServerParameters(command=command, args=arguments, env=dict(os.environ)), "auto")
        return
    url, mode = rest
    headers = {"Authorization": f"Bearer {os.environ['MCP_TOKEN']}"}
    async with create_mcp_http_client(headers=headers) as http:
        await run(streamable_http_client(url, http_client=http), mode)


asyncio.run(main())
