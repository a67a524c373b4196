"""The page beside rendered Redis files: what goes where, in which order. Markdown, in the language of `words`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from orchestrator.rendering import Words
from orchestrator.said import Said, say

AUTHORITY = (
    "openssl req -x509 -newkey rsa:3072 -nodes -days 3650 -subj '/CN=dcsup' -keyout ca.key -out ca.pem",
    "openssl req -newkey rsa:3072 -nodes -subj /CN=redis1 -keyout redis.key -out redis.csr",
    "printf 'subjectAltName=DNS:redis1,IP:192.0.2.1\\n' > redis.ext",
    "openssl x509 -req -in redis.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 825 -extfile redis.ext -out redis.crt",
)
"""An authority and one certificate; the tests make theirs in the same way."""


def page(machines: Mapping[str, str], words: Words, *, tls: bool, sentinels: bool, place: str) -> str:
    """The whole page.

    Args:
        machines: folder of a machine -> its user.
        words: the page's language.
        tls: whether certificates are needed.
        sentinels: whether Redis is found through Sentinels.
        place: where the files lie on the machines.
    """
    lines = _lines(machines, tls=tls, sentinels=sentinels, place=place)
    return "\n".join(line.in_words(words) if isinstance(line, Said) else line for line in lines) + "\n"


def _lines(machines: Mapping[str, str], *, tls: bool, sentinels: bool, place: str) -> Iterator[Said | str]:
    yield from (say("# Redis for dcsup"), "")
    yield say("These folders hold passwords and keys: keep them where only you can read, and copy each only to the machine that it is for.")
    yield from ("", say("## The servers"), "")
    yield say("1. Redis 7.0 or newer, or Valkey: older ones cannot give a node read-only keys, and refuse `users.acl`.")
    yield say("2. Copy `redis/users.acl` and `redis/redis.conf` (as `dcsup.conf`) to `/etc/redis`, readable by the server's user alone.")
    yield say("3. Put `include /etc/redis/dcsup.conf` at the end of `redis.conf`, fill in `bind`, and start the server again.")
    if sentinels:
        yield say("4. Copy `redis/redis-auth.conf` beside them, on the master and on every replica.")
        yield say("5. Copy the lines of `redis/sentinel.conf` into each Sentinel's own file, behind `sentinel monitor`.")
    yield from ("", say("## The machines"), "")
    yield say("Copy each folder to {place} on its machine, and put its `redis.toml` into that machine's `dcsup.toml`:", place=place)
    yield ""
    yield from _table(machines)
    yield say("The files must be readable by the user that runs dcsup, and by nobody else.")
    if tls:
        yield from ("", say("## Certificates"), "")
        yield say("The servers want a certificate of every client. With an authority of your own, one of each machine is made like this:")
        yield from ("", "```", *AUTHORITY, "```", "")
        yield say("They are `ca.pem`, `redis.crt` and `redis.key` in `/etc/redis/tls` on the servers;")
        yield say("`ca.pem`, `dcsup.crt` and `dcsup.key` in {place} on the machines.", place=place)
        yield say("The server's certificate must be for the name or address by which dcsup calls it (`subjectAltName`).")
    yield from ("", say("## New passwords and keys"), "")
    yield say("1. `dcsup render redis --rotate` makes new ones; the ones before stay good for now.")
    yield say("2. Copy `users.acl` and say `ACL LOAD`; then copy the folders of the nodes, then those of the orchestrators.")
    yield say("3. Restart dcsup on each machine (a worker may be restarted at any time), then render again without `--rotate`:")
    yield say("   the old passwords end with the new `users.acl` and `ACL LOAD`. An old key ends with the next `--rotate`.")


def _table(machines: Mapping[str, str]) -> Iterator[Said | str]:
    yield say("| folder | machine | user |")
    yield "|---|---|---|"
    for machine, user in machines.items():
        yield say("| {folder} | {machine} | {user} |", folder=machine, machine=_what(machine), user=user)
    yield ""


def _what(machine: str) -> Said:
    known = {
        "orchestrator": say("every machine that runs an orchestrator"),
        "operator": say("people who may pause, resume and move"),
        "viewer": say("people and programs that only look"),
    }
    cluster, _, node = machine.partition("_")
    return known.get(machine) or say("node {node} of cluster {cluster}", node=node, cluster=cluster)
