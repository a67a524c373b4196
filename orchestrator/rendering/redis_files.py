"""What an installation with a Redis of its own needs, as one folder a machine: `dcsup render redis`.

    redis/                   for the servers: users.acl, redis.conf, and with Sentinels redis-auth.conf and sentinel.conf
    orchestrator/            for the machines that run `dcsup orchestrator`
    <cluster>_<node>/        for that node
    operator/  viewer/       for people: who may ask for something, and who may only look
    README.en.md  README.ja.md

In each machine's folder: `redis.toml` (what belongs into its dcsup.toml), `redis.password`, and the keys that sign and check jobs
(statemachines/signing.py). Passwords and keys are random, 256 bits; the ACL file holds only hashes of passwords.

Pure: settings and secrets in, {relative path: bytes} out. Where secrets come from is `Secrets`: what an earlier rendering left is kept,
what is missing is made. Rotating makes new ones, and lets the ones before stay good until the next rendering without it, so that
machines can change over one after the other.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.rendering import Platform, Words, redis_acl, redis_page
from orchestrator.rendering.redis_acl import ASKING, OPERATOR, ORCHESTRATOR, REPLICA, SENTINEL, VIEWER, User
from statemachines import addresses, signing, wire
from statemachines.configuration import ClusterSettings, RedisSettings

REDIS_PLACE = "/etc/redis"
"""Where the files of redis/ are taken to lie on the server."""

PLACES: dict[Platform, str] = {"linux": "/etc/dcsup", "windows": "C:\\ProgramData\\dcsup"}
"""Where a machine's own folder is taken to lie, unless the site says otherwise."""

_PEOPLE = {ORCHESTRATOR: "orchestrator", OPERATOR: "operator", VIEWER: "viewer"}
_BYTES = 32


@dataclass(frozen=True)
class Plan:
    """What is rendered for."""

    settings: RedisSettings
    clusters: Mapping[str, ClusterSettings]
    tls: bool
    place: str
    """Folder of dcsup's own files on every machine, without a separator at its end."""

    @property
    def with_sentinels(self) -> bool:
        return self.settings.sentinels is not None

    @property
    def nodes(self) -> list[tuple[str, str]]:
        return [(cluster, node) for cluster, settings in sorted(self.clusters.items()) for node in settings.nodes]

    def users(self) -> list[User]:
        """The users of the servers."""
        people = [redis_acl.orchestrator_user(self.clusters), redis_acl.operator_user(self.clusters), redis_acl.viewer_user(self.clusters)]
        beside = redis_acl.replication_users() if self.with_sentinels else ()
        return [*people, *(redis_acl.node_user(cluster, node) for cluster, node in self.nodes), *beside]

    def passwords(self) -> dict[str, str]:
        """User -> the file that holds its password."""
        machines = _PEOPLE | {wire.prefix(cluster, node): wire.prefix(cluster, node) for cluster, node in self.nodes}
        files = {user: f"{machine}/redis.password" for user, machine in machines.items()}
        beside = {REPLICA: "redis/replica.password", SENTINEL: "redis/sentinel.password", ASKING: "redis/asking.password"}
        return files | (beside if self.with_sentinels else {})

    def machines(self) -> dict[str, str]:
        """Folder of a machine -> its user."""
        return {file.partition("/")[0]: user for user, file in self.passwords().items() if not file.startswith("redis/")}

    def key_file(self, cluster: str) -> str:
        return f"orchestrator/{cluster}.key"

    def at(self, name: str) -> str:
        """A file's path on the machine that it is for."""
        return f"{self.place}{chr(92) if chr(92) in self.place else '/'}{name}"


@dataclass
class Secrets:
    """Passwords and keys: the good ones of each, the one in use first."""

    passwords: dict[str, list[str]] = field(default_factory=dict)
    keys: dict[str, list[str]] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    """Users and clusters that got a new one."""
    kept: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, plan: Plan, folder: Path, *, rotate: bool) -> Secrets:
        """What the folder has, completed.

        Raises:
            OSError: a file is there and cannot be read.
            UnicodeDecodeError: a file is no text.
        """
        found = cls()
        for user, file in plan.passwords().items():
            found.passwords[user] = found._next(user, _lines(folder / file)[:1], rotate)
        for cluster in sorted(plan.clusters):
            before = _lines(folder / plan.key_file(cluster))
            found.keys[cluster] = found._next(cluster, before[:1] if rotate else before, rotate)
        return found

    def _next(self, name: str, before: list[str], rotate: bool) -> list[str]:
        (self.kept if before and not rotate else self.made).append(name)
        return before if before and not rotate else [secrets.token_hex(_BYTES), *before]


def _lines(file: Path) -> list[str]:
    return [line.strip() for line in file.read_text("utf-8").splitlines() if line.strip()] if file.exists() else []


def files(plan: Plan, known: Secrets, languages: Mapping[str, Words]) -> dict[str, bytes]:
    """Everything, by its path in the folder; `languages`: of the README, by code."""
    texts = dict(_servers(plan, known)) | dict(_secrets(plan, known))
    for machine, user in plan.machines().items():
        texts[f"{machine}/redis.toml"] = "\n".join(_machine(plan, machine, user)) + "\n"
    for code, words in languages.items():
        texts[f"README.{code}.md"] = redis_page.page(plan.machines(), words, tls=plan.tls, sentinels=plan.with_sentinels, place=plan.place)
    return {name: text.encode() for name, text in texts.items()}


# --- secrets ------------------------------------------------------------------------------------------------------------------------------


def _secrets(plan: Plan, known: Secrets) -> Iterator[tuple[str, str]]:
    for user, file in plan.passwords().items():
        yield file, known.passwords[user][0] + "\n"
    if plan.with_sentinels:
        for machine in plan.machines():
            yield f"{machine}/sentinel.password", known.passwords[ASKING][0] + "\n"
    for cluster, keys in known.keys.items():
        yield plan.key_file(cluster), _text(keys)
    for cluster, node in plan.nodes:
        yield f"{wire.prefix(cluster, node)}/node.key", _text(signing.node_keys(known.keys[cluster], cluster, node))


def _text(lines: list[str] | tuple[str, ...]) -> str:
    return "\n".join(lines) + "\n"


def _hashes(passwords: list[str]) -> list[str]:
    return [hashlib.sha256(one.encode()).hexdigest() for one in passwords]


# --- the servers --------------------------------------------------------------------------------------------------------------------------


def _servers(plan: Plan, known: Secrets) -> Iterator[tuple[str, str]]:
    yield "redis/users.acl", redis_acl.acl_file({user: _hashes(known.passwords[user.name]) for user in plan.users()})
    yield "redis/redis.conf", "\n".join(_redis_conf(plan)) + "\n"
    if plan.with_sentinels:
        yield "redis/redis-auth.conf", f"masteruser {REPLICA}\nmasterauth {known.passwords[REPLICA][0]}\n"
        yield "redis/sentinel.conf", "\n".join(_sentinel_conf(plan, known)) + "\n"


def _redis_conf(plan: Plan) -> Iterator[str]:
    host, port = (addresses.place_of(plan.settings.url) if plan.settings.url is not None else None) or ("", addresses.REDIS_PORT)
    yield "# Redis 7.0 or newer, or Valkey. At the end of redis.conf: include /etc/redis/dcsup.conf"
    yield "# bind: the addresses on which machines of dcsup's reach this server"
    yield " ".join(["bind 127.0.0.1 -::1", *([host] if _is_outer_address(host) else [])])
    yield "protected-mode yes"
    yield from _ports(plan, port)
    yield "# the log of the clusters lives here: every change is on the disk before it is answered, and nothing is ever thrown out"
    yield from ("appendonly yes", "appendfsync always", "maxmemory-policy noeviction")
    yield f"aclfile {REDIS_PLACE}/users.acl"
    if plan.with_sentinels:
        yield f"include {REDIS_PLACE}/redis-auth.conf"
        yield "# a master that lost sight of every replica takes no writes, so that two masters never both do; needs two replicas or more"
        yield from ("# min-replicas-to-write 1", "# min-replicas-max-lag 10")


def _ports(plan: Plan, port: int) -> Iterator[str]:
    if not plan.tls:
        yield f"port {port}"
        return
    yield from ("port 0", f"tls-port {port}", "tls-auth-clients yes")
    for key, name in (("cert", "redis.crt"), ("key", "redis.key"), ("ca-cert", "ca.pem")):
        yield f"tls-{key}-file {REDIS_PLACE}/tls/{name}"
    if plan.with_sentinels:
        yield "tls-replication yes"


def _is_outer_address(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _sentinel_conf(plan: Plan, known: Secrets) -> Iterator[str]:
    master, own = plan.settings.sentinel_master, known.passwords[SENTINEL]
    yield f"# Behind the line `sentinel monitor {master} ...`; the Sentinel itself writes to this file, so copy the lines into its own"
    asking, sentinel = redis_acl.sentinel_users()
    yield "user default off resetchannels -@all"
    yield asking.line(_hashes(known.passwords[ASKING]))
    yield sentinel.line(_hashes(own))
    yield f"sentinel sentinel-user {SENTINEL}"
    yield f"sentinel sentinel-pass {own[0]}"
    yield f"sentinel auth-user {master} {SENTINEL}"
    yield f"sentinel auth-pass {master} {own[0]}"
    if plan.tls:
        yield from _ports(plan, addresses.SENTINEL_PORT)


# --- the machines -------------------------------------------------------------------------------------------------------------------------


def _machine(plan: Plan, machine: str, user: str) -> Iterator[str]:
    settings: dict[str, object] = {}
    if plan.settings.url is not None:
        settings["url"] = addresses.without_user(plan.settings.url, tls=plan.tls)
    else:
        settings |= {"sentinels": plan.settings.sentinels, "sentinel_master": plan.settings.sentinel_master, "sentinel_username": ASKING}
        settings |= {"sentinel_password_file": plan.at("sentinel.password")} | ({"tls": True} if plan.tls else {})
    settings |= {"username": user, "password_file": plan.at("redis.password")}
    if plan.tls:
        settings |= {"ca_file": plan.at("ca.pem"), "cert_file": plan.at("dcsup.crt"), "key_file": plan.at("dcsup.key")}
    yield "# These tables belong into this machine's dcsup.toml."
    yield from _table("redis", settings)
    if machine == _PEOPLE[ORCHESTRATOR]:
        for cluster in sorted(plan.clusters):
            yield from ("", *_table(f"keys.{cluster}", {"file": plan.at(f"{cluster}.key")}))
    elif user not in _PEOPLE:
        yield from ("", *_table("node.key", {"file": plan.at("node.key")}))


def _table(name: str, values: Mapping[str, object]) -> Iterator[str]:
    yield f"[{name}]"
    for key, value in values.items():
        yield f"{key} = {json.dumps(value, ensure_ascii=False)}"
