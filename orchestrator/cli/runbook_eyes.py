"""What `dcsup runbook` can see from where it runs: this node, if it is one, and the orchestrator that leads the cluster.

Everything is only looked at, within seconds; what cannot be seen is None or "unknown", never an error.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cached_property
from typing import Any

from orchestrator.cli.connection import leader_state, redis_of
from orchestrator.cli.stopping import Stop
from orchestrator.runbooks.verifying import Finding, State
from orchestrator.said import say
from statemachines.configuration import ClusterSettings, Configuration, NodeSettings

LOOK_LIMIT_S = 10.0
"""For one command of the cluster manager."""

CHECK_LIMIT_S = 120.0


class RealEyes:
    """orchestrator.runbooks.verifying.Eyes. Made anew for each look: what was seen once is not asked for again."""

    def __init__(self, configuration: Configuration, cluster: str, config: str) -> None:
        self._configuration, self._cluster, self._config = configuration, cluster, config
        node = configuration.node
        self._node: NodeSettings | None = node if node is not None and node.cluster == cluster else None
        self.node = self._node.name if self._node else None

    @property
    def _settings(self) -> ClusterSettings:
        return self._configuration.clusters[self._cluster]

    # --- the cluster

    def state(self) -> State | None:
        return self._state

    @cached_property
    def _state(self) -> State | None:
        """Only while somebody leads: an old state is no evidence."""
        from statemachines.states import new_state

        try:
            with redis_of(self._configuration) as client:
                found = leader_state(client, self._configuration.orchestrator, self._cluster)
        except Stop:
            return None
        return {**new_state(self._cluster).model_dump(mode="json"), **found} if found is not None else None

    def active(self) -> tuple[str, ...] | None:
        return self._active

    @cached_property
    def _active(self) -> tuple[str, ...] | None:
        from workers.clusterview import group_argv, output_of, parse_clpgrp
        from workers.views import ViewError

        if self._node is None or not self._node.clpgrp:
            return None
        try:
            outcome = _run(group_argv(self._node.clpgrp, self._settings.group_there), self._node.encoding)
            ours = {self._settings.server_there(node): node for node in self._settings.nodes}
            return tuple(ours.get(name, name) for name in parse_clpgrp(output_of(outcome, "clpgrp"), list(ours)))
        except ViewError:
            return None

    # --- this node

    def boot(self) -> str | None:
        from workers.outbox import boot_id

        try:
            return boot_id(self._node.boot) if self._node else None
        except (OSError, subprocess.SubprocessError):
            return None

    def startups(self) -> dict[str, str] | None:
        from workers.inspection import inspect

        services = inspect(self._configuration).get("services") if self._node else None
        return None if services is None else {name: found.get("startup", "unknown") for name, found in services.items()}

    def listening(self, port: int) -> bool | None:
        import psutil

        try:
            sockets = psutil.net_connections("tcp")
        except (psutil.Error, OSError):
            return None
        return any(one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port for one in sockets)

    def there(self, path: str) -> bool | None:
        try:
            os.stat(path)  # noqa: PTH116 - Path.exists takes a refusal for absence
        except (FileNotFoundError, NotADirectoryError):
            return False
        except (OSError, ValueError):
            return None
        return True

    def program(self, service: str) -> str | None:
        place = self._node.services.get(service) if self._node else None
        argv = (place.command or place.start) if place else None
        return argv[0] if argv else None

    def check(self, metadata_path: str | None, shared_folder: str | None) -> Finding:
        """Its own process: what it finds is its own words, and this one goes on whatever becomes of it."""
        command = [sys.executable, "-m", "orchestrator.cli", "check", "--node", "--config", self._config, "--cluster", self._cluster]
        for option, path in (("--metadata-path", metadata_path), ("--shared-folder", shared_folder)):
            command += [option, path] if path else []
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=CHECK_LIMIT_S, check=False)
        except (OSError, subprocess.SubprocessError) as error:
            return Finding("unknown", (say("`dcsup check` could not be run: {why}", why=str(error)),))
        if done.returncode == 0:
            return Finding("yes", (say("`dcsup check` found no error"),))
        if done.returncode == 1:
            return Finding("no", (say("`dcsup check` found something; run it to see what"),))
        return Finding("unknown", (say("`dcsup check` ended with code {code}", code=done.returncode),))


def _run(argv: list[str], encoding: str) -> Any:
    """A command's outcome; Ctrl-C ends it too."""
    import time

    from workers.runs import Run

    run = Run(argv, LOOK_LIMIT_S, encoding=encoding)
    try:
        while (outcome := run.poll()) is None:
            time.sleep(0.05)
    except KeyboardInterrupt:
        run.discard()
        raise
    return outcome
