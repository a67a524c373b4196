"""The network between clients and nodes: the floating IP address, as fixed loopback ports that follow the group.

A floating IP address is no property of a machine: it belongs to whichever node announced it last, also while its former holder hangs
with all its sockets open. So it lives outside the nodes. A node claims it (``{"op": "claim", "node": ...}`` on the control port) or
releases it; while it is claimed, connections to the fixed ports are passed on to that node's own ports; a change of
hands cuts what was open.

A fixed port takes connections only while the holder of the address has somebody listening behind it, as a machine refuses them
otherwise; that is looked at every ``FOLLOW_INTERVAL_S``. While nobody has the address, nothing listens there.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import time
from typing import Any

from . import records
from .place import LOOPBACK

CHUNK_BYTES = 65536
FOLLOW_INTERVAL_S = 0.1
LOOK_TIMEOUT_S = 1.0


class Network:
    """Who has the floating IP address, and the connections made through it."""

    def __init__(self, base: str) -> None:
        self._base = base
        with open(os.path.join(base, "sandbox.json"), encoding="utf-8") as file:
            self._settings: dict[str, Any] = json.load(file)
        self._owner: str | None = None
        self._services = [name for name in self._settings["network"] if name != "control"]
        self._listeners: dict[str, asyncio.Server] = {}
        self._open: set[asyncio.StreamWriter] = set()

    async def serve(self) -> None:
        """Answer claims until the process is ended."""
        server = await asyncio.start_server(self._control, LOOPBACK, self._settings["network"]["control"])
        async with server:
            await self._follow()

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
        for service in self._services:
            self._refuse(service)
        records.append(os.path.join(self._base, "records", "network.jsonl"), {"time": time.time(), "what": op, "node": node})

    async def _follow(self) -> None:
        while True:
            for service in self._services:
                await self._follow_one(service)
            await asyncio.sleep(FOLLOW_INTERVAL_S)

    async def _follow_one(self, service: str) -> None:
        owner = self._owner
        listens = owner is not None and await self._listens(owner, service)
        if owner != self._owner:
            return  # it changed hands while we looked
        if listens and service not in self._listeners:
            self._listeners[service] = await self._listen(service)
        if not listens:
            self._refuse(service)

    async def _listens(self, owner: str, service: str) -> bool:
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(LOOPBACK, self._settings["nodes"][owner][service]), LOOK_TIMEOUT_S)
        except TimeoutError:
            return service in self._listeners  # a machine that hangs refuses nobody: as it was
        except OSError:
            return False
        # cut, not closed: a port kept waiting for each look would soon be thousands of them
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        return True

    async def _listen(self, service: str) -> asyncio.Server:
        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._forward(service, reader, writer)

        return await asyncio.start_server(accepted, LOOPBACK, self._settings["network"][service])

    def _refuse(self, service: str) -> None:
        listener = self._listeners.pop(service, None)
        if listener is not None:
            listener.close()

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
        except OSError:  # the holder of the address has nobody listening any more
            self._refuse(service)
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
