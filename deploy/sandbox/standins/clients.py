"""Clients of the clustered server: one process that writes through the floating IP address, and writes down how that went.

Every ``interval_s`` one connection, one ``WRITE``, one answer; ``records/clients.jsonl`` gets ``time`` (when the attempt began), ``ok``,
``error``, ``text`` and ``seconds``. Run as ``clients <base> <host> <port> [interval_s]``; it ends by SIGTERM.
"""

from __future__ import annotations

import os
import socket
import time

from . import records


def write_once(host: str, port: int, text: str, timeout_s: float = 2.0) -> str:
    """Write ``text`` through ``host:port``: '' when it was stored, otherwise what went wrong."""
    try:
        with socket.create_connection((host, port), timeout_s) as connection:
            connection.sendall(f"WRITE {text}\n".encode())
            with connection.makefile("rb") as stream:
                answer = stream.readline().decode().strip()
    except OSError as error:
        return f"{type(error).__name__}: {error}"
    return "" if answer == "OK" else answer or "connection closed without an answer"


def main(argv: list[str]) -> int:
    """Write until ended."""
    base, host, port = argv[0], argv[1], int(argv[2])
    interval_s = float(argv[3]) if len(argv) > 3 else 0.1
    path, number = os.path.join(base, "records", "clients.jsonl"), 0
    while True:
        number += 1
        began, start = time.time(), time.monotonic()
        text = f"client-{os.getpid()}-{number}"
        error = write_once(host, port, text)
        spent_s = time.monotonic() - start
        records.append(path, {"time": began, "ok": not error, "error": error, "text": text, "seconds": round(spent_s, 4)})
        time.sleep(max(0.0, interval_s - spent_s))
