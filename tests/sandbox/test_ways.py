"""The ways to Redis: each trouble does what its name says, to one way alone, and a half-open connection stays dead."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from deploy.sandbox.ways import Ways
from orchestrator.embedded import EmbeddedRedis
from tests.conftest import wait_until


@pytest.fixture
def ways(redis_server: EmbeddedRedis) -> Iterator[Ways]:
    """Two ways to the shared server."""
    with Ways(redis_server.folder, ("one", "other"), seed=1) as opened:
        yield opened


@contextlib.contextmanager
def client(ways: Ways, name: str, timeout_s: float = 30.0) -> Iterator[redis.Redis]:
    """A client of one way, which tries nothing twice."""
    with redis.Redis.from_url(ways.url(name), socket_timeout=timeout_s, retry=Retry(NoBackoff(), 0)) as opened:
        yield opened


def test_an_open_way_passes_everything_on(ways: Ways) -> None:
    """Requests and answers arrive, large ones too."""
    with client(ways, "one") as one:
        one.set("big", b"x" * 3_000_000)
        assert len(one.get("big") or b"") == 3_000_000
    assert ways.counts()["one"]["connections"] >= 1


def test_a_shut_way_cuts_what_is_open_and_refuses_what_comes_and_the_other_goes_on(ways: Ways) -> None:
    """One is partitioned alone; it is whole again when its way is."""
    with client(ways, "one") as one, client(ways, "other") as other:
        assert one.ping()
        assert other.ping()
        ways.set("one", "shut")
        for _ in range(2):
            with pytest.raises(redis.ConnectionError):
                one.ping()
        assert other.ping()
        ways.set("one", "open")
        assert one.ping()


def test_a_deaf_way_has_requests_carried_out_and_swallows_their_answers_for_good(ways: Ways) -> None:
    """Half open: the effect is there, the answer never comes, also not when the way is open again; a new connection works."""
    with client(ways, "one", timeout_s=1.0) as one, client(ways, "other") as other:
        held = one.connection_pool.get_connection()
        ways.set("one", "deaf")
        held.send_command("INCR", "n")  # type: ignore[no-untyped-call]
        wait_until(lambda: other.get("n") == b"1", "the request's effect")
        ways.set("one", "open")
        with pytest.raises(redis.TimeoutError):
            held.read_response()
        held.disconnect()  # type: ignore[no-untyped-call]
        assert one.incr("n") == 2


def test_a_swallowing_way_lets_nothing_through(ways: Ways) -> None:
    """Neither effect nor answer; nothing is closed."""
    with client(ways, "one", timeout_s=1.0) as one, client(ways, "other") as other:
        assert one.ping()
        ways.set("one", "swallow")
        with pytest.raises(redis.TimeoutError):
            one.incr("n")
        assert other.get("n") is None
        assert ways.counts()["one"]["swallowed"] >= 1


def test_a_cutting_way_throws_away_its_share(ways: Ways) -> None:
    """With a share of 1 every request is thrown away with its connection; with 0 none is."""
    with client(ways, "one") as one:
        ways.set("one", "cut", share=1.0)
        with pytest.raises(redis.ConnectionError):
            one.ping()
        ways.set("one", "cut", share=0.0)
        assert one.ping()


def test_a_slow_way_holds_each_piece_back(ways: Ways) -> None:
    """An answer that takes longer than a client waits comes too late for it."""
    with client(ways, "one", timeout_s=0.5) as one:
        assert one.ping()
        ways.set("one", "delay", seconds=5.0)
        with pytest.raises(redis.TimeoutError):
            one.ping()


def test_the_process_ends_with_its_driver(redis_server: EmbeddedRedis) -> None:
    """Closed twice or once, nothing of it is left."""
    ways = Ways(redis_server.folder, ("one",))
    path = Path(ways.url("one").removeprefix("unix://"))
    assert path.exists()
    ways.close()
    assert not path.exists()
