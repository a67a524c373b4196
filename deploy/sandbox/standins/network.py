"""The network between clients and nodes: the floating IP address, as fixed loopback ports that follow the group.

A floating IP address is no property of a machine: it belongs to whichever node announced it last, also while its former holder hangs
with all its sockets open. So it lives outside the nodes. A node claims it (``{"op": "claim", "node": ...}`` on the control port) or
releases it; while it is claimed, connections to the fixed ports are passed on to that node's own ports; a change of
hands cuts what was open. While nobody has the address, nothing listens there.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from typing import Any

from . import records
from .place import LOOPBACK

CHUNK_BYTES = 65536


class Network:
    """Who has the floating IP address, and the connections made through it."""

    def __init__(self, base: str) -> None:
        self._base = base
        with open(os.path.join(base, "sandbox.json"), encoding="utf-8") as file:
            self._settings: dict[str, Any] = json.load(file)
        self._owner: str | None = None
        self._listeners: list[asyncio.Server] = []
        self._open: set[asyncio.StreamWriter] = set()

    async def serve(self) -> None:
        """Answer claims until the process is ended."""
        server = await asyncio.start_server(self._control, LOOPBACK, self._settings["network"]["control"])
        async with server:
            await server.serve_forever()

    async def _control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        if not line:  # somebody only looked whether we listen
            writer.close()
            return
        request, error = json.loads(line), ""
        try:
            await self._change(request["op"], request["node"])
        except OSError as problem:
            error = str(problem)
        writer.write(json.dumps({"ok": not error, "error": error, "owner": self._owner}).encode() + b"\n")
        await writer.drain()
        writer.close()

    async def _change(self, op: str, node: str) -> None:
        if op == "release" and node != self._owner:
            return
        self._cut()
        self._owner = node if op == "claim" else None
        if self._owner and not self._listeners:
            self._listeners = [await self._listen(service) for service in ("server", "agent")]
        if not self._owner:
            self._close_listeners()
        records.append(os.path.join(self._base, "records", "network.jsonl"), {"time": time.time(), "what": op, "node": node})

    async def _listen(self, service: str) -> asyncio.Server:
        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._forward(service, reader, writer)

        return await asyncio.start_server(accepted, LOOPBACK, self._settings["network"][service])

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners = []

    def _cut(self) -> None:
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()

    async def _forward(self, service: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._owner is None:
            writer.transport.abort()
            return
        try:
            inner_reader, inner_writer = await asyncio.open_connection(LOOPBACK, self._settings["nodes"][self._owner][service])
        except OSError:  # the holder of the address has nobody listening: the client is refused
            writer.transport.abort()
            return
        await asyncio.gather(self._pump(reader, inner_writer), self._pump(inner_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while data := await reader.read(CHUNK_BYTES):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # either side is gone; the other is told by closing below
        finally:
            self._open.discard(writer)
            writer.close()


def main(argv: list[str]) -> int:
    """Serve the network of the sandbox in folder ``argv[0]``."""
    try:
        asyncio.run(Network(argv[0]).serve())
    except KeyboardInterrupt:
        pass
    return 0
