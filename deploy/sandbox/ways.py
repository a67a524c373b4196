"""Ways to Redis: a process between everybody and the server, with a way of its own for each, so that one can be cut off alone.

Whoever plays faults (soak.py) gives each orchestrator and each node the address of its own way, a Unix socket. A way is *open*, or it
has one of the troubles that networks have:

=============  ============================================================================================================
mode           what happens to what goes through
=============  ============================================================================================================
open           it arrives
shut           what is open is cut; whoever connects is cut off at once
cut            each request and each answer may be the one that is thrown away, and its connection closed (`share` of them)
delay          each piece is held back for `seconds`
swallow        nothing arrives in either direction, and nothing is closed
deaf           requests arrive and are carried out; their answers are swallowed, and nothing is closed
=============  ============================================================================================================

`swallow` and `deaf` are what a half-open connection is: when the way is open again a connection that lost something stays dead for good, as
one does that a packet filter has forgotten, and only a new one works. `Ways` is the handle for the driver; it talks to the process
by lines of JSON. The process ends when its standard input does, so none is left when the driver dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, Any
from urllib.parse import quote

OPEN = "open"
MODES = (OPEN, "shut", "cut", "delay", "swallow", "deaf")
CHUNK_BYTES = 1 << 16


class Ways:
    """The process, as its driver sees it.

    Args:
        redis_folder: of an EmbeddedRedis; where its socket is, is looked up for each connection, for a restart may change it.
        names: whose ways.
        seed: of the dice for the mode `cut`.
    """

    def __init__(self, redis_folder: Path, names: Iterable[str], seed: int = 0) -> None:
        self.names = tuple(names)
        self._folder = Path(tempfile.mkdtemp(prefix="dcsup-ways-"))  # short: a socket's path may have about 100 bytes
        argv = [sys.executable, "-m", "deploy.sandbox.ways", str(redis_folder), str(self._folder), str(seed), *self.names]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        self._answer()

    def __enter__(self) -> Ways:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def url(self, name: str) -> str:
        """The address of somebody's way."""
        return "unix://" + quote(str(self._folder / name))

    def set(self, name: str, mode: str, seconds: float = 0.0, share: float = 0.0) -> None:
        """Give a way a trouble, or open it again (see the table above)."""
        self._ask({"way": name, "mode": mode, "seconds": seconds, "share": share})

    def counts(self) -> dict[str, dict[str, int]]:
        """Way -> what happened on it: `connections`, `cut`, `swallowed` (pieces)."""
        counts: dict[str, dict[str, int]] = self._ask({"counts": True})
        return counts

    def close(self) -> None:
        """End the process; everything that is open is cut."""
        stdin, stdout = self._pipes()
        with contextlib.suppress(OSError):
            stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        stdout.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _ask(self, request: dict[str, Any]) -> Any:
        stdin, _ = self._pipes()
        stdin.write(json.dumps(request).encode() + b"\n")
        stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        line = self._pipes()[1].readline()
        if not line:
            raise ConnectionError("the process of the ways to Redis has ended")
        return json.loads(line)

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self._process.stdin is not None and self._process.stdout is not None
        return self._process.stdin, self._process.stdout


class _Way:
    """One way, and what is open on it."""

    def __init__(self, redis_folder: Path, dice: random.Random) -> None:
        self.mode, self.seconds, self.share = OPEN, 0.0, 0.0
        self.counts = {"connections": 0, "cut": 0, "swallowed": 0}
        self._redis_folder, self._dice = redis_folder, dice
        self._open: set[_Connection] = set()

    def set(self, mode: str, seconds: float, share: float) -> None:
        self.mode, self.seconds, self.share = mode, seconds, share
        if mode == "shut":
            for connection in list(self._open):
                connection.cut()

    async def accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.counts["connections"] += 1
        try:
            if self.mode == "shut":
                raise OSError("shut")
            target = (self._redis_folder / "socket").read_text().rstrip("\n")
            inner_reader, inner_writer = await asyncio.open_unix_connection(target)
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection(self, writer, inner_writer)
        self._open.add(connection)
        try:
            await asyncio.gather(connection.pump(reader, inner_writer, asking=True), connection.pump(inner_reader, writer, asking=False))
        finally:
            self._open.discard(connection)

    def thrown(self) -> bool:
        return self.mode == "cut" and self._dice.random() < self.share


class _Connection:
    """Both directions of one connection."""

    def __init__(self, way: _Way, outer: asyncio.StreamWriter, inner: asyncio.StreamWriter) -> None:
        self._way, self._writers = way, (outer, inner)
        self._dead = False

    def cut(self) -> None:
        self._way.counts["cut"] += 1
        for writer in self._writers:
            writer.transport.abort()

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, asking: bool) -> None:
        try:
            while data := await reader.read(CHUNK_BYTES):
                await self._pass_on(data, writer, asking)
            await self._ended(writer)
        except OSError:
            self.cut()

    async def _pass_on(self, data: bytes, writer: asyncio.StreamWriter, asking: bool) -> None:
        way = self._way
        if way.mode == "swallow" or (way.mode == "deaf" and not asking):
            self._dead = True
        if self._dead and not (way.mode == "deaf" and asking):
            way.counts["swallowed"] += 1
            return
        if way.thrown():
            self.cut()
            return
        if way.mode == "delay":
            await asyncio.sleep(way.seconds)
        writer.write(data)
        await writer.drain()

    async def _ended(self, writer: asyncio.StreamWriter) -> None:
        """One side hung up. The other is told, unless nothing gets through: a dead connection tells nobody of its end."""
        if not self._dead or writer is self._writers[1]:
            writer.close()


async def _serve(redis_folder: Path, folder: Path, seed: int, names: list[str]) -> None:
    ways = {name: _Way(redis_folder, random.Random(f"{seed} {name}")) for name in names}
    for name, way in ways.items():
        await asyncio.start_unix_server(way.accepted, str(folder / name))
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: None)  # a connection that breaks is what we are here for
    _say(sorted(names))
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        request = json.loads(line)
        if "way" in request:
            ways[request["way"]].set(request["mode"], request["seconds"], request["share"])
        _say({name: way.counts for name, way in ways.items()} if "counts" in request else {})


def _say(answer: Any) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main(argv: list[str]) -> int:
    """Serve until standard input ends: folder of the Redis, folder for the sockets, seed, names."""
    redis_folder, folder, seed, *names = argv
    try:
        asyncio.run(_serve(Path(redis_folder), Path(folder), int(seed), names))
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
