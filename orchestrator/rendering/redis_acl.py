"""Who may do what in Redis: one ACL user for each node, one for the orchestrators, and two for people.

A node may add to its own inbox and look at what it added, read its own mark and whether there is maintenance, give its two signs of
life, ring its own cluster's bell, and work its own two RQ queues. Nothing else: not the log, not the head, not another node's keys, no
scripts, no look around (KEYS, SCAN, MONITOR; INFO it may ask for, as RQ does once). The list was made by tracing a node's worker over its
whole life, redeliveries, failing jobs and upkeep included; tests/security/test_acl.py holds both ends of it: enough, and not more.

What belongs together stands in one selector, `(commands keys)`, so that a command that is good for one key is not good for another: RQ's
sets of all workers and queues can be added to, and not be read or emptied. Selectors and read-only keys need Redis 7.0 or any Valkey.

A pattern ends in `*` only behind the node's own `<cluster>_<node>-`, and no node's name begins another's (statemachines/configuration.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from statemachines import wire

ORCHESTRATOR, OPERATOR, VIEWER = "dcsup-orchestrator", "dcsup-operator", "dcsup-viewer"
REPLICA, SENTINEL, ASKING = "dcsup-replica", "dcsup-sentinel", "dcsup-asking"
"""With Sentinels only: a replica that follows its master, the Sentinels among themselves and at the servers, and whoever asks them."""

CONNECTING = "+ping +select +client|setname"
"""What every client says of itself; HELLO and AUTH are allowed to all."""

_JOBS = (
    "blmove rpoplpush lmove lindex lpop rpush lpush lrem lrange llen lpos hset hget hmget hgetall hexists hdel hincrby hincrbyfloat "
    "sadd srem smembers scard zadd zrem zscore zcard zrange zrangebyscore zremrangebyscore xadd xlen xread xrevrange "
    "get set del exists expire persist watch"
)
"""What RQ's worker does with its own queues and jobs."""

_REGISTRIES = ("wip", "finished", "failed", "deferred", "scheduled", "canceled")


@dataclass(frozen=True)
class User:
    """An ACL user; `rules` as Redis writes them, without name, state and password."""

    name: str
    rules: tuple[str, ...]

    def line(self, hashes: Iterable[str]) -> str:
        """The user's line in an ACL file; `hashes`: SHA-256 of each password that is good, in hexadecimal."""
        return " ".join(["user", self.name, "on", "resetchannels", *(f"#{one}" for one in hashes), "-@all", *self.rules])


def node_user(cluster: str, node: str) -> User:
    """What the node's worker is allowed."""
    begins = wire.prefix(cluster, node)
    queues = (wire.command_queue(cluster, node), wire.watch_queue(cluster, node))
    jobs = [f"rq:{kind}:{begins}-*" for kind in ("job", "results", "execution", "executions", "worker")]
    jobs += [f"rq:job::{begins}-*:dependencies"]
    jobs += [pattern for queue in queues for pattern in (f"rq:queue:{queue}", f"rq:queue:{queue}:*", f"rq:workers:{queue}")]
    jobs += [f"rq:{registry}:{queue}" for registry in _REGISTRIES for queue in queues]
    rules = (
        CONNECTING, "+client|info +info +time +multi +exec +discard +unwatch", f"&{wire.bell(cluster)} +publish",
        _selector(_JOBS, jobs),
        _selector("xadd xrevrange", [wire.inbox(cluster, node)]),
        _selector("get", [wire.mark(cluster, node), wire.maintenance(cluster)], "%R~"),
        _selector("set", [wire.alive(cluster, node)], "%W~"),
        _selector("set exists", [wire.watch_alive(cluster, node)]),
        _selector("sadd", ["rq:queues"], "%W~"),
        _selector("sadd srem", ["rq:workers"], "%W~"),
    )  # fmt: skip
    return User(begins, rules)


def orchestrator_user(clusters: Iterable[str]) -> User:
    """What the orchestrators of these clusters are allowed: everything that is the clusters', and their nodes' queues."""
    names = sorted(clusters)
    keys = [f"dcsup:{cluster}:*" for cluster in names] + [wire.lease("*")]
    keys += [pattern for cluster in names for pattern in (f"rq:queue:{wire.prefix(cluster, '*')}", f"rq:job:{wire.prefix(cluster, '*')}")]
    commands = (
        "eval evalsha script|load time info multi exec discard watch unwatch publish subscribe unsubscribe get mget set del exists expire "
        "persist xadd xdel xlen xrange xrevrange xread xtrim hset hget hgetall sadd rpush lpush llen"
    )
    return User(ORCHESTRATOR, (CONNECTING, "+client|info", _all(commands), _keys([*keys, "rq:queues"]), *_bells(names)))


def operator_user(clusters: Iterable[str]) -> User:
    """A person at the console: sees everything, and may ask (pause, resume, runbooks); the orchestrator decides."""
    names = sorted(clusters)
    asks = _selector("xadd", [wire.inbox(cluster, wire.OPERATOR_INBOX) for cluster in names], "%W~")
    return User(OPERATOR, (*_looking(names), "+publish", *_bells(names), asks))


def viewer_user(clusters: Iterable[str]) -> User:
    """Sees everything and changes nothing: for dashboards, reports and exports."""
    return User(VIEWER, _looking(sorted(clusters)))


def replication_users() -> tuple[User, User]:
    """What Redis's own manual names for replicas and Sentinels, now that `default` is off."""
    sentinel = "multi exec ping subscribe unsubscribe psubscribe publish config|rewrite role info slaveof replicaof client|kill script|kill"
    return (
        User(REPLICA, ("+psync +replconf +ping",)),
        User(SENTINEL, ("allchannels", _all(sentinel), "+client|setname")),
    )


def sentinel_users() -> tuple[User, User]:
    """The users of the Sentinels themselves: every machine of dcsup's asks for one thing, and they tell each other everything."""
    return (
        User(ASKING, ("+ping +client|setname +sentinel|master +sentinel|get-master-addr-by-name",)),
        User(SENTINEL, ("allchannels +@all",)),
    )


def acl_file(users: Mapping[User, Sequence[str]]) -> str:
    """The ACL file: each user with the hashes of its passwords; nobody else gets in."""
    lines = ["user default off resetchannels -@all"]
    return "\n".join(lines + [user.line(hashes) for user, hashes in users.items()]) + "\n"


def _looking(clusters: Sequence[str]) -> tuple[str, ...]:
    keys = [pattern for cluster in clusters for pattern in (f"dcsup:{cluster}:*", wire.lease("*"))]
    commands = "time info multi exec discard get mget exists xrange xrevrange xlen xread"
    return (CONNECTING, _all(commands), _keys(dict.fromkeys(keys), "%R~"))


def _bells(clusters: Iterable[str]) -> list[str]:
    return [f"&{wire.bell(cluster)}" for cluster in clusters]


def _selector(commands: str, keys: Iterable[str], access: str = "~") -> str:
    return f"({_all(commands)} {_keys(keys, access)})"


def _all(commands: str) -> str:
    return " ".join(f"+{command}" for command in commands.split())


def _keys(patterns: Iterable[str], access: str = "~") -> str:
    return " ".join(f"{access}{pattern}" for pattern in patterns)
