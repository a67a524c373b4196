"""Rules about who else could act, or read what is secret: keys, passwords, the network, files (docs/security.md)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orchestrator.checking.evidence import Evidence, NodeEvidence
from orchestrator.checking.of_nodes import each
from orchestrator.checking.rules import Hit, Rule
from orchestrator.said import Said, say
from statemachines import addresses


def _unsigned(evidence: Evidence) -> Iterator[Hit]:
    whole, node = evidence.need_whole(), evidence.node_settings
    if whole.redis.embedded is not None or evidence.cluster in whole.keys or (node is not None and node.key is not None):
        return
    yield Hit(say("cluster '{name}' has no key: its jobs are not signed", name=evidence.cluster), evidence.at())


def _cluster_key_on_a_node(evidence: Evidence) -> Iterator[Hit]:
    """Where there is a [node] table, the file is a node's."""
    whole = evidence.need_whole()
    if whole.redis.embedded is None and evidence.node_settings is not None and evidence.cluster in whole.keys:
        yield Hit(say("this node has the key of the whole cluster"), evidence.at_top("keys", evidence.cluster))


def _password_in_url(evidence: Evidence) -> Iterator[Hit]:
    if addresses.holds_password(evidence.need_whole().redis.url or ""):
        yield Hit(say("the password of Redis stands in dcsup.toml itself"), evidence.at_top("redis", "url"))


def _plain_network(evidence: Evidence) -> Iterator[Hit]:
    redis = evidence.need_whole().redis
    if redis.embedded is None and not redis.speaks_tls and not _is_here(redis.url):
        yield Hit(say("Redis is on another machine and is spoken to without TLS"), evidence.at_top("redis"))


def _is_here(url: str | None) -> bool:
    from urllib.parse import urlsplit

    if url is None:
        return False  # Sentinels
    place = urlsplit(url)
    return place.scheme == "unix" or (place.hostname or "") in ("localhost", "::1") or (place.hostname or "").startswith("127.")


def _open_endpoint(evidence: Evidence) -> Iterator[Hit]:
    from orchestrator.settings import is_loopback

    settings = evidence.need_whole().orchestrator
    if is_loopback(settings.listen):
        return
    if settings.open:
        yield Hit(say("anybody who reaches {listen} may read metrics and states", listen=settings.listen), evidence.at_top("orchestrator"))
    elif settings.cert_file is None:
        text = say("the token travels to {listen} without TLS: whoever listens on the network can read it", listen=settings.listen)
        yield Hit(text, evidence.at_top("orchestrator"))


# --- files on the nodes -------------------------------------------------------------------------------------------------------------------


def _changed_by_others(evidence: Evidence, kind: str) -> Iterator[Hit]:
    yield from _accessible(evidence, kind, "writers", say("{node}: {path} can be changed by: {who}"))


def _read_by_others(evidence: Evidence) -> Iterator[Hit]:
    yield from _accessible(evidence, "secret", "readers", say("{node}: {path} can be read by: {who}"))
    yield from _accessible(evidence, "secret", "writers", say("{node}: {path} can be changed by: {who}"))


def _accessible(evidence: Evidence, kind: str, right: str, text: Said) -> Iterator[Hit]:
    for node, seen in each(evidence, say("who may access the files that dcsup trusts"), lambda node: _permissions(node, kind, right)):
        for one in seen:
            if one[right]:
                values = {"node": node.name, "path": one.get("path", "-"), "who": ", ".join(map(str, one[right]))}
                yield Hit(Said(text.template, values), node.name)


def _permissions(node: NodeEvidence, kind: str, right: str) -> list[dict[str, Any]] | None:
    """The node's files of this kind; None: not known of each of them."""
    seen = node.look("permissions")
    if not isinstance(seen, list) or not all(isinstance(one, dict) for one in seen):
        return None
    found = [one for one in seen if one.get("kind") == kind]
    return found if all(isinstance(one.get(right), list) for one in found) else None


# --- the rules ----------------------------------------------------------------------------------------------------------------------------

RULES: tuple[Rule, ...] = (
    Rule(
        "N-signed", say("jobs are signed with a key per node"), "error", ("configuration",),
        say("who may write to a node's queue, or takes over Redis, could make the node act"),
        say("run `dcsup render redis`, and put [keys.CLUSTER] into the orchestrators' dcsup.toml and [node.key] into each node's"),
        _unsigned,
    ),
    Rule(
        "N-node-key", say("a node has its own key and not the cluster's"), "warning", ("configuration",),
        say("whoever takes over this node could forge jobs for the others"),
        say("give it [node.key] with its own key from `dcsup render redis`, and run the orchestrator with a file of its own"),
        _cluster_key_on_a_node,
    ),
    Rule(
        "N-password", say("the password of Redis is in a file of its own, or in the environment"), "warning", ("configuration",),
        say("dcsup.toml is copied, mailed and kept in backups"),
        say("take it out of `url`, and name a file with `password_file` in [redis]"),
        _password_in_url,
    ),
    Rule(
        "N-redis-tls", say("Redis on another machine is spoken to with TLS"), "warning", ("configuration",),
        say("whoever listens on the network reads passwords and facts, and whoever is in between can change them"),
        say("write `url` as rediss://..., or `tls = true` beside `sentinels`; `dcsup render redis --tls` writes the server's part"),
        _plain_network,
    ),
    Rule(
        "N-endpoint", say("metrics and states are read by those who may"), "warning", ("configuration",),
        say("they tell which nodes and services there are, and when a failover is under way"),
        say("listen on 127.0.0.1, or set token_file and cert_file in [orchestrator]"),
        _open_endpoint,
    ),
    Rule(
        "N-folder-permissions", say("only dcsup, CLUSTERPRO and administrators can write the node folder"), "error", ("node",),
        say("tickets are the fence: whoever may rename them can have commands run twice, or not at all"),
        say("Linux: chmod -R go-w FOLDER; Windows: icacls FOLDER /inheritance:r /grant *S-1-5-18:(OI)(CI)F *S-1-5-32-544:(OI)(CI)F"),
        lambda evidence: _changed_by_others(evidence, "folder"),
    ),
    Rule(
        "N-settings-permissions", say("only administrators can change dcsup.toml"), "error", ("node",),
        say("it names the commands that the node runs"),
        say("take the right to write it, and its folder, from everybody else"),
        lambda evidence: _changed_by_others(evidence, "settings"),
    ),
    Rule(
        "N-secret-files", say("only dcsup can read its secrets"), "error", ("node",),
        say("a password or key is worth what its readers are"),
        say("Linux: chmod 600 FILE; Windows: icacls FILE /inheritance:r /grant *S-1-5-18:F *S-1-5-32-544:F; then make a new secret"),
        _read_by_others,
    ),
)  # fmt: skip
