"""Ports of loopback for one sandbox: a range that no other sandbox takes, and whether somebody listens on one."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

from .place import LOOPBACK

# Below the range from which Linux and macOS take the ports of outgoing connections: otherwise a client that tries a port on which nobody
# listens may be given that very port as its own, and be connected to itself.
PORTS = range(20_000, 32_000)
PORTS_A_SANDBOX = 100


def reserve() -> tuple[int, Iterator[int]]:
    """A range of ports of our own: the descriptor that keeps it ours, and the ports on which nobody listens now, by TCP or by UDP.

    Sandboxes that are made at the same time would otherwise choose the same ports: most are bound only when a node is switched on. So each
    holds the first port of its range for as long as it lives, bound and not listened on.
    """
    for first in random.sample(PORTS[::PORTS_A_SANDBOX], len(PORTS) // PORTS_A_SANDBOX):
        guard = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            guard.bind((LOOPBACK, first))
        except OSError:
            guard.close()
            continue
        return guard.detach(), (port for port in range(first + 1, first + PORTS_A_SANDBOX) if _free(port))
    raise OSError("no range of ports is free")


def _free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as candidate:
            try:
                candidate.bind((LOOPBACK, port))
            except OSError:
                return False
    return True


def listens(port: int) -> bool:
    """Whether somebody takes connections on a loopback port."""
    try:
        socket.create_connection((LOOPBACK, port), 1.0).close()
    except OSError:
        return False
    return True
