"""Answers who is at the site, over a socket that only the agent's user may open.

One request a connection, in one line; the answer is one JSON object a line.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from mumian_agent.adapters.local.socket_path import reachable
from mumian_agent.agent.site_desk import SiteDesk

_REQUEST_WITHIN_S = 5.0


async def serve(state_dir: Path, desk: SiteDesk) -> None:
    """Answer until cancelled."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            try:
                async with asyncio.timeout(_REQUEST_WITHIN_S):
                    request = json.loads(await reader.readline() or b"{}")
                async for line in _answer(desk, request):
                    writer.write(json.dumps(line).encode() + b"\n")
                    await writer.drain()
            except (ValueError, TimeoutError):
                pass  # whoever it is speaks another language
            finally:
                writer.close()

    with reachable(state_dir) as path:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108 -- of an agent that was killed: nobody else has this state folder
        before = os.umask(0o177)
        try:
            server = await asyncio.start_unix_server(answer, path)
        finally:
            os.umask(before)
    async with server:
        await server.serve_forever()


async def _answer(desk: SiteDesk, request: Any) -> AsyncIterator[dict[str, Any]]:
    match request:
        case {"verb": "status"}:
            yield desk.status()
        case {"verb": "logs", "allocation": str(allocation), "follow": bool(follow), "tail_bytes": int(tail)}:
            pieces = desk.logs(allocation, follow=follow, tail_bytes=tail)
            if pieces is None:
                yield {"error": f"this site knows nothing of allocation {allocation}"}
                return
            async for piece in pieces:
                yield {"stream": int(piece.stream), "data": base64.b64encode(piece.data).decode()}
        case {"verb": "cancel", "allocation": str(allocation)}:
            ended = desk.cancel(allocation)
            yield {"ended": allocation} if ended else {"error": f"nothing runs of allocation {allocation}"}
        case _:
            yield {"error": "the agent does not know this request; is it older than the command?"}
