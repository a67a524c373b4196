"""From the configuration to what the commands ask: Redis, and the leading orchestrators.

Commands that look must not wait long: short time-outs, no retries. Whoever is asked and does not answer is named, with what to do.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from orchestrator.cli.neighbour import ask, own_url
from orchestrator.cli.output import remark
from orchestrator.cli.stopping import NO_ANSWER, WRONG_USE, Stop
from orchestrator.said import Said, say
from orchestrator.settings import load, masked
from statemachines import wire
from statemachines.configuration import Configuration, OrchestratorSettings, RedisSettings

if TYPE_CHECKING:
    from redis import Redis

    from orchestrator.ports import StoredEntry

REDIS_LIMIT_S = 5.0


def configured(arguments: argparse.Namespace) -> Configuration:
    """Raises ConfigurationError."""
    return load(arguments.config)


def chosen(arguments: argparse.Namespace, configuration: Configuration) -> list[str]:
    """The clusters that were named with --cluster, or all of the configuration.

    Raises:
        Stop: a name is not in the configuration.
    """
    for name in arguments.cluster or ():
        if name not in configuration.clusters:
            known = ", ".join(sorted(configuration.clusters))
            text = say("there is no cluster '{name}' in {file}; known: {known}", name=name, file=arguments.config, known=known)
            raise Stop(WRONG_USE, text)
    return sorted(set(arguments.cluster or configuration.clusters))


# --- Redis --------------------------------------------------------------------------------------------------------------------------------


@contextmanager
def redis_of(configuration: Configuration) -> Iterator[Redis]:
    """A connection; whatever Redis refuses inside the block becomes one clear line.

    Raises:
        Stop: it does not answer, or refuses.
    """
    from redis.exceptions import RedisError

    client = _client(configuration.redis)
    _check_embedded(configuration.redis)
    try:
        with client:
            yield client
    except RedisError as error:
        raise Stop(NO_ANSWER, _refusal(_place(configuration.redis), error)) from error


def check_redis(configuration: Configuration) -> None:
    """Whether what [redis] names can be used: the files, and how the address is spelt; nothing is sent.

    Raises:
        Stop: something cannot.
        SecretError: a password is not where it should be.
    """
    _client(configuration.redis).close()


def _client(settings: RedisSettings) -> Redis:
    from workers.redisclient import Unusable, client_of

    _check_secrets(settings)
    try:
        return client_of(settings, REDIS_LIMIT_S, name="dcsup-cli")
    except Unusable as error:
        raise Stop(WRONG_USE, Said(error.template, error.values)) from error


def _check_secrets(settings: RedisSettings) -> None:
    """In the reader's language; the connection's own words are for logs.

    Raises:
        SecretError: one is not where it should be.
    """
    from orchestrator.secretfiles import read_secret

    for which in ("password", "sentinel_password"):
        file, env = getattr(settings, f"{which}_file"), getattr(settings, f"{which}_env")
        if file is not None or env is not None:
            read_secret(file, env, f"redis.{which}_{'file' if file is not None else 'env'}")


def _check_embedded(settings: RedisSettings) -> None:
    from orchestrator.embedded import EmbeddedRedisError, in_use

    folder = settings.embedded
    try:
        if folder is None or in_use(folder):
            return
    except EmbeddedRedisError as error:
        raise Stop(NO_ANSWER, say("the embedded Redis in {folder} cannot be reached: {why}", folder=folder, why=error.said)) from error
    raise Stop(NO_ANSWER, say("the embedded Redis in {folder} does not run; `dcsup orchestrator` starts it", folder=folder))


def _place(settings: RedisSettings) -> str:
    """Where Redis is, fit for a screen."""
    if settings.sentinels is not None:
        return f"{settings.sentinel_master} ({', '.join(settings.sentinels)})"
    return masked(settings.url) if settings.url is not None else str(settings.embedded)


def _refusal(place: str, error: Exception) -> Said:
    from redis.exceptions import AuthenticationError, BusyLoadingError, ConnectionError, NoPermissionError, TimeoutError

    from workers.redisclient import Unreachable

    why: str | Said = str(error) or type(error).__name__
    if isinstance(error, Unreachable):
        return say("Redis cannot be reached: {why}", why=Said(error.template, error.values))
    if isinstance(error, (AuthenticationError, NoPermissionError)):
        return say("Redis at {url} refuses this user ({why}); check name, password and rights in [redis]", url=place, why=why)
    if isinstance(error, BusyLoadingError):
        return say("Redis at {url} is still loading its data; try again in a moment", url=place)
    if isinstance(error, (ConnectionError, TimeoutError)):
        return say("Redis at {url} does not answer ({why}); is it running, and is [redis] right?", url=place, why=why)
    return say("Redis at {url} refused a command ({why})", url=place, why=why)


# --- states -------------------------------------------------------------------------------------------------------------------------------


def states(configuration: Configuration, clusters: list[str]) -> dict[str, dict[str, Any]]:
    """The state of each cluster: from the orchestrator that leads it, else folded from its log.

    Raises:
        Stop: neither an orchestrator nor Redis answers.
        Damaged: the log is not what was written.
    """
    try:
        with redis_of(configuration) as client:
            return _asked_or_folded(client, configuration.orchestrator, clusters)
    except Stop as stop:
        found = ask(own_url(configuration.orchestrator), configuration.orchestrator)
        if stop.code != NO_ANSWER or not all(cluster in found for cluster in clusters):
            raise
        remark(stop.said)
        remark(say("this is what the orchestrator at {listen} knows", listen=configuration.orchestrator.listen))
        return {cluster: found[cluster] for cluster in clusters}


def _asked_or_folded(client: Redis, settings: OrchestratorSettings, clusters: list[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for cluster in clusters:
        if cluster not in found and (url := leader_url(client, cluster)) is not None:
            found.update(ask(url, settings))
        if cluster not in found:
            remark(say("no orchestrator leads cluster '{cluster}' and answers: this is the state of its log", cluster=cluster))
            found[cluster] = folded(client, cluster)
    return {cluster: found[cluster] for cluster in clusters}


def leader_url(client: Redis, cluster: str) -> str | None:
    """Where the orchestrator that leads the cluster answers; None: none leads, or its lease ran out."""
    owner: Any = client.get(wire.owner(cluster))
    lease: Any = client.get(wire.lease(owner.decode(errors="replace"))) if owner else None
    try:
        url = json.loads(lease)["url"] if lease else None
    except (ValueError, TypeError, KeyError):
        return None
    return url if isinstance(url, str) else None


def leader_state(client: Redis, settings: OrchestratorSettings, cluster: str) -> dict[str, Any] | None:
    """The cluster's state as the orchestrator that leads it tells it now; None: none leads, or it does not answer."""
    url = leader_url(client, cluster)
    return ask(url, settings).get(cluster) if url is not None else None


def folded(client: Redis, cluster: str) -> dict[str, Any]:
    """The state that the log in Redis leads to, from the snapshot on, if that is one of this version."""
    from orchestrator.chain import Chain
    from orchestrator.export import checked, stored
    from orchestrator.history import snapshot
    from orchestrator.replay import replay
    from statemachines.states import new_state

    begin = snapshot(_Looking(client), cluster) or new_state(cluster)
    place = Chain(cluster, begin.last_id, begin.last_hash)
    state = replay(checked(stored(client, cluster, begin.last_id), cluster, place), begin).state or begin
    return state.model_dump(mode="json")


class _Looking:
    """Snapshots (orchestrator/history.py) over a connection that only looks."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    def get_snapshot(self, cluster: str) -> bytes | None:
        found: Any = self._client.get(wire.snapshot(cluster))
        return found if isinstance(found, bytes) else None

    def read_entry(self, cluster: str, entry_id: str) -> StoredEntry | None:
        from orchestrator.export import entry_at

        return entry_at(self._client, cluster, entry_id)
