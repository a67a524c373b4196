"""The keeper: ends what a sandbox left running when its driver was killed outright.

Everything in a sandbox leads sessions of its own, as services do, and so outlives a driver that gets SIGKILL. The keeper is a small
process that holds the other end of a pipe: when the pipe closes without a word, the driver is dead, and the keeper ends the sandbox's
processes and its Redis, and takes off the small disks that were put on its folders.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType

from deploy.sandbox.site import Site
from deploy.sandbox.standins import processes
from orchestrator.embedded import EmbeddedRedis, in_use


class Keeper:
    """Watches over a site as long as it is open; closed in good order it does nothing."""

    def __init__(self, site: Site) -> None:
        argv = [sys.executable, "-m", "deploy.sandbox.keeper", site.cluster.id, str(site.cluster.base), str(site.redis.folder)]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, start_new_session=True)

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.communicate(b"all is well\n")


def main(argv: list[str]) -> int:
    """Wait for the driver's word, or its death: the sandbox's id, its folder, the folder of its Redis."""
    mark, base, redis_folder = argv[0], argv[1], Path(argv[2])
    if sys.stdin.buffer.read():
        return 0
    processes.kill(mark, base)
    if in_use(redis_folder):
        EmbeddedRedis(redis_folder).kill()
    for folder in _mounted_below(base):
        subprocess.run(["umount", "--lazy", folder], check=False)
    return 0


def _mounted_below(base: str) -> list[str]:
    mounts = Path("/proc/mounts")
    lines = mounts.read_text(encoding="utf-8").splitlines() if mounts.exists() else []
    return [place for line in lines if (place := line.split()[1].replace("\\040", " ")).startswith(base + "/")]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
