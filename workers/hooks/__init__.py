"""What CLUSTERPRO's scripts run: `dcsup hook start|stop|watch|alert` (DESIGN.md, "Node side"; NODE.md).

A hook touches this node's disk and nothing else: no Redis, no network, standard library only, nothing that can hang. It knows three
endings: 0 and 40 are dcsup's own words (up, or not running any more; and: it is not), and 75 says that dcsup is not there, so that
the script goes on with the guide's plain sequence. Whatever goes wrong inside a hook is therefore a 75 with one line of reason, never
a traceback. Only `alert` has no plain sequence behind it: it always ends 0.
"""

from __future__ import annotations

import sys

EXIT_GOOD, EXIT_BAD, EXIT_FALL_BACK = 0, 40, 75

USAGE = """\
usage: dcsup hook start|stop --folder F --ticket T [--ack-timeout S] [--limit S] [--command-limit S] [--poll-limit S]
                             [--parent PID | --parent-file P]
       dcsup hook watch --folder F --service NAME [--boot B] [--interval S] [--poll-limit S] [--confirm N]
                        [--parent PID | --parent-file P] -- DCSTATUS...
       dcsup hook alert --folder F [--boot B] [--module M --id N] [--text] TEXT..."""


class UsageError(Exception):
    """The command line is not one of a hook's."""


def main(argv: list[str]) -> int:
    """Run one hook and return its exit code: 0, 40 or 75 (an alert: 0).

    Args:
        argv: the hook's name and its options, without `dcsup hook`.
    """
    name = argv[0] if argv else ""
    try:
        code, reason = _run(name, argv[1:])
    except UsageError as error:
        code, reason = EXIT_FALL_BACK, f"{error}\n{USAGE}"
    except (Exception, KeyboardInterrupt) as error:
        code, reason = EXIT_FALL_BACK, f"{type(error).__name__}: {' '.join(str(error).split())}"
    code = EXIT_GOOD if name == "alert" else code
    try:
        print(f"dcsup hook {name}: {code} ({reason})", file=sys.stderr, flush=True)
    except OSError:
        pass  # the log of the script is on a full disk: the code says it all
    return code


def _run(name: str, rest: list[str]) -> tuple[int, str]:
    # Each hook imports only its own module: a start must not wait for what only the watch needs.
    if name == "start":
        from workers.hooks import start

        return start.run(rest)
    if name == "stop":
        from workers.hooks import stop

        return stop.run(rest)
    if name == "watch":
        from workers.hooks import watch

        return watch.run(rest)
    if name == "alert":
        from workers.hooks import alert

        return alert.run(rest)
    raise UsageError(f"there is no hook {name!r}")
