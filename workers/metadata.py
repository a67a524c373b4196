"""The metadata DB server, watched and shown, never started or stopped (G44): its service, and whether its port takes connections.

Only where the cluster has a `metadata` table, and at the pace of the manager's view. The service is asked for by the site's own command
(`node.metadata_status`, exit code 0: it runs), on Windows else by `sc query`; elsewhere it stays unknown. The port is that of this machine,
for the server's own connections go there (G31). A database that still takes connections after a stop still holds the
disk: that is what this is for. Only changes become facts.
"""

from __future__ import annotations

import errno
import selectors
import socket
import sys
import time
from typing import Literal

from statemachines.configuration import MetadataSettings, NodeSettings
from workers.inspection import parse_sc_query
from workers.polls import Report
from workers.runs import Outcome, Run

COMMAND_LIMIT_S = 10.0
PORT_LIMIT_S = 3.0
"""Windows takes about two seconds to call a closed port closed, on its own machine too."""

Service = Literal["running", "stopped", "unknown"]
Port = Literal["open", "closed", "unknown"]
_CLOSED = (errno.ECONNREFUSED, errno.ECONNRESET)
_UNDER_WAY = (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EAGAIN, errno.EALREADY)


class PortCheck:
    """One attempt to connect to a port of this machine; never blocks."""

    def __init__(self, port: int, limit_s: float = PORT_LIMIT_S) -> None:
        self._until = time.monotonic() + limit_s
        self._answer: Port | None = None
        self._socket: socket.socket | None = None
        try:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self._socket.setblocking(False)
            self._judge(self._socket.connect_ex(("127.0.0.1", port)))
        except OSError:
            self._answer = "unknown"  # no descriptor left: that says nothing about the port
            self.discard()

    def _judge(self, error: int) -> None:
        if error in _UNDER_WAY:
            return
        self._answer = "closed" if error in _CLOSED else "unknown" if error else "open"
        self.discard()

    def poll(self) -> Port | None:
        """Its outcome; None while it is under way."""
        if self._socket is not None:
            try:
                self._look(self._socket)
            except OSError:
                self._answer = "unknown"
                self.discard()
        return self._answer

    def _look(self, connection: socket.socket) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(connection, selectors.EVENT_WRITE)
            if selector.select(0):
                self._judge(connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            elif time.monotonic() > self._until:
                self._judge(errno.ETIMEDOUT)

    def discard(self) -> None:
        """Give it up."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class MetadataWatch:
    """Looks every `view_interval` and reports what changed. `step` never blocks."""

    def __init__(self, node: NodeSettings, metadata: MetadataSettings, report: Report) -> None:
        self._interval_s, self._port, self._report = node.view_interval, metadata.port, report
        self._site = list(node.metadata_status) if node.metadata_status is not None else None
        self._argv = self._site or (["sc", "query", metadata.service] if sys.platform == "win32" else None)
        self._run: Run | None = None
        self._check: PortCheck | None = None
        self._due = 0.0
        self._told: tuple[Service, Port] | None = None

    @property
    def busy(self) -> bool:
        return self._run is not None or self._check is not None

    def step(self, now: float) -> None:
        """Begin what is due; tell what was seen once both have answered."""
        if self._check is None:
            if now >= self._due:
                self._due = now + self._interval_s
                self._check = PortCheck(self._port)
                self._run = Run(self._argv, COMMAND_LIMIT_S, keep_output=self._site is None) if self._argv is not None else None
            return
        port, outcome = self._check.poll(), self._run.poll() if self._run is not None else None
        if port is not None and (self._run is None or outcome is not None):
            self._check = self._run = None
            self._tell(self._service(outcome), port)

    def _service(self, outcome: Outcome | None) -> Service:
        if outcome is None or outcome.code is None:
            return "unknown"
        if self._site is not None:
            return "stopped" if outcome.code else "running"
        return service_of(outcome.output)

    def _tell(self, service: Service, port: Port) -> None:
        if (service, port) != self._told:
            self._told = (service, port)
            self._report("MetadataObserved", {"service": service, "port": port}, "watch")

    def tell_again(self) -> None:
        """What is seen next is told, whether it is a change or not."""
        self._told = None

    def discard(self) -> None:
        """End what is under way and forget it."""
        for one in (self._run, self._check):
            if one is not None:
                one.discard()
        self._run = self._check = None


def service_of(printed: str) -> Service:
    """The state in what `sc query` printed: running, stopped, or unknown (starting, stopping, paused, no such service)."""
    state = parse_sc_query(printed).get("state")
    return "running" if state == "running" else "stopped" if state == "stopped" else "unknown"
