"""How dcsup gets into Redis: names and passwords from files or the environment, Sentinels, and what is said when it does not."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from orchestrator.settings import load
from statemachines.configuration import RedisSettings
from tests.cli.conftest import CONFIGURATION, Dcsup, dcsup, english
from tests.conftest import wait_until
from tests.orchestrator.test_surface_settings import GOOD, mistakes
from tests.security.installation import ADMIN, redis_of, render
from tests.security.servers import Server, free_port, listening, serving
from workers.redisclient import Unreachable, Unusable, client_of

__all__ = ["dcsup", "english"]  # fixtures

SECRET = "s3cr3t-" * 4


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    """A server that knows one user of dcsup's."""
    users = f"user default off\nuser me on >{SECRET} ~* &* +@all\n{ADMIN}"
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), users) as server:
        yield server


# --- configuration ------------------------------------------------------------------------------------------------------------------------

URL = 'url = "redis://127.0.0.1:6379/0"\n'
WRONG = {
    "two places": (URL + 'sentinels = ["s:1"]\n', "redis", "set one of url"),
    "no place": ('username = "u"\n', "redis", "set one of url"),
    "an address with a slash in its password": ('url = "redis://u:pa/ss@h"\n', "redis.url", "an address such as redis://"),
    "no Sentinel's address": ('sentinels = ["s:1", "s:x"]\nsentinel_master = "m"\n', "redis.sentinels[1]", "a host and its port"),
    "Sentinels without a master": ('sentinels = ["s:1"]\n', "redis.sentinels", "set sentinel_master"),
    "a master without Sentinels": (URL + 'sentinel_master = "m"\n', "redis.sentinel_master", "it belongs to sentinels"),
    "both kinds of password": (URL + 'password_file = "f"\npassword_env = "E"\n', "redis.password_env", "not both"),
    "a user without a password": (URL + 'username = "u"\n', "redis.username", "set password_file"),
    "two passwords": ('url = "redis://:p@h"\npassword_file = "f"\n', "redis.password_file", "take it out there"),
    "two users": ('url = "redis://u@h"\nusername = "v"\npassword_file = "f"\n', "redis.username", "take it out there"),
    "a certificate without TLS": (URL + 'ca_file = "ca.pem"\n', "redis.ca_file", "write url as rediss://"),
    "a key without a certificate": ('url = "rediss://h"\nkey_file = "k"\n', "redis.key_file", "set cert_file"),
    "a user of the embedded one": ('embedded = "d"\nusername = "u"\npassword_env = "E"\n', "redis.username", "knows no users"),
}


@pytest.mark.parametrize(("table", "where", "sentence"), WRONG.values(), ids=WRONG.keys())
def test_what_does_not_go_together_is_told_with_its_line(tmp_path: Path, table: str, where: str, sentence: str) -> None:
    """Each on the line of the setting, with what to do, and without the password."""
    text = GOOD.replace(URL, table)
    found = [one for one in mistakes(tmp_path, text) if one[1] == where]
    assert len(found) == 1 and sentence in found[0][2]
    assert "pa/ss" not in found[0][2]
    key = where.partition(".")[2].partition("[")[0]
    assert text.splitlines()[found[0][0] - 1].startswith(key if key else "[redis]")


def test_everything_can_be_set_at_once(tmp_path: Path) -> None:
    """Sentinels with their own user, a user of the servers, TLS."""
    table = (
        'sentinels = ["a", "b:1", "[::1]:2"]\nsentinel_master = "m"\nsentinel_username = "s"\nsentinel_password_env = "S"\nusername = "u"\n'
        'password_file = "f"\ntls = true\nca_file = "ca"\ncert_file = "c"\nkey_file = "k"\n'
    )
    (tmp_path / "dcsup.toml").write_text(GOOD.replace(URL, table))
    settings = load(tmp_path / "dcsup.toml").redis
    assert (settings.sentinels, settings.speaks_tls, settings.has_password) == (["a", "b:1", "[::1]:2"], True, True)


# --- passwords ----------------------------------------------------------------------------------------------------------------------------


def test_a_password_is_read_anew_for_each_connection(guarded: Server, tmp_path: Path) -> None:
    """From a file or from the environment; a password that was changed in both places costs no restart."""
    file = tmp_path / "password"
    file.write_text(SECRET + "\n")
    url = f"redis://127.0.0.1:{guarded.port}/0"
    for settings in (RedisSettings(url=url, username="me", password_file=str(file)),
                     RedisSettings(url=url.replace("://", "://me@"), password_file=str(file))):  # fmt: skip
        with client_of(settings) as client:
            assert client.acl_whoami() == "me"
    admin: Any = guarded.client(username="admin", password="any")
    with client_of(RedisSettings(url=url, username="me", password_file=str(file))) as client:
        client.ping()
        admin.execute_command("ACL", "SETUSER", "me", ">another", f"<{SECRET}")
        file.write_text("another")
        admin.execute_command("CLIENT", "KILL", "USER", "me")
        wait_until(lambda: answers(client), "the client with its new password")
        admin.execute_command("ACL", "SETUSER", "me", "<another", f">{SECRET}")


def answers(client: Any) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def test_a_password_in_the_environment(guarded: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named by the variable; when it goes away while dcsup runs, that is a state and not an end."""
    monkeypatch.setenv("REDIS_SECRET", SECRET)
    settings = RedisSettings(url=f"redis://127.0.0.1:{guarded.port}/0", username="me", password_env="REDIS_SECRET")
    with client_of(settings) as client:
        assert client.acl_whoami() == "me"
        client.connection_pool.disconnect()
        monkeypatch.delenv("REDIS_SECRET")
        with pytest.raises(Unreachable, match="REDIS_SECRET"):
            client.ping()


@pytest.mark.parametrize("command", ["status", "events", "orchestrator", "pause"])
def test_a_password_that_is_not_there_names_its_place(command: str, guarded: Server, tmp_path: Path, dcsup: Dcsup) -> None:
    """Exit code 2, one line: which setting, which file, what to do."""
    lines = f'username = "me"\npassword_file = "{tmp_path}/nowhere"\n'
    config = tmp_path / "dcsup.toml"
    text = CONFIGURATION.format(url=f"redis://127.0.0.1:{guarded.port}/0")
    config.write_text(text.replace("[orchestrator]", f"{lines}[orchestrator]"))
    answer = dcsup(command, "--config", config)
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "redis.password_file" in answer.err and f"{tmp_path}/nowhere" in answer.err


def test_a_wrong_password_is_told_and_not_shown(guarded: Server, tmp_path: Path, dcsup: Dcsup) -> None:
    """Redis's refusal becomes one line without the password, exit code 3; from a file and from a url."""
    file = tmp_path / "password"
    file.write_text("wr0ng-" * 4)
    place = f"127.0.0.1:{guarded.port}/0"
    for url, lines in ((f"redis://{place}", f'username = "me"\npassword_file = "{file}"\n'), (f"redis://me:{'wr0ng-' * 4}@{place}", "")):
        config = tmp_path / "dcsup.toml"
        config.write_text(CONFIGURATION.format(url=url).replace("[orchestrator]", f"{lines}[orchestrator]"))
        answer = dcsup("events", "--config", config)
        assert (answer.code, answer.err.count("\n")) == (3, 1)
        assert "refuses this user" in answer.err
        assert "wr0ng" not in answer.err + answer.out


def test_an_address_that_is_none_is_not_quoted() -> None:
    """What redis-py says of an address that it cannot take apart may hold a part of the password."""
    with pytest.raises(Unusable) as caught:
        client_of(RedisSettings.model_construct(url="redis://me:pa/ss@h"))
    assert "pa" not in str(caught.value).replace("[redis]", "")


# --- replicas and Sentinels ---------------------------------------------------------------------------------------------------------------


def test_a_server_that_became_a_replica_is_left(tmp_path: Path) -> None:
    """Its refusal to write is an error, and the next connection looks anew where Redis is."""
    with serving(tmp_path / "server") as server, client_of(RedisSettings(url=f"redis://127.0.0.1:{server.port}/0")) as client:
        client.set("a", 1)
        before = client.client_id()
        server.client().replicaof("127.0.0.1", free_port())
        with pytest.raises(redis.ReadOnlyError):
            client.set("a", 2)
        server.client().replicaof("NO", "ONE")
        assert client.set("a", 3)
        assert client.client_id() != before


def test_sentinels_with_the_rendered_users(tmp_path: Path) -> None:
    """Master, replica and Sentinel run with what `render redis` wrote for them; dcsup finds the master with its own password for the
    Sentinel, which allows it nothing else, and after a failover the new one."""
    asking = free_port()
    out = render(tmp_path, f'sentinels = ["127.0.0.1:1", "127.0.0.1:{asking}"]\nsentinel_master = "m"')
    with ExitStack() as stack:
        ports = [free_port(), free_port()]
        lines = [server_lines(out, tmp_path, port, ports[0] if n else None) for n, port in enumerate(ports)]
        first, _ = (stack.enter_context(listening(tmp_path / f"server-{n}", lines[n], port)) for n, port in enumerate(ports))
        stack.enter_context(listening(tmp_path / "sentinel", sentinel_lines(out, asking, ports[0]), asking, sentinel=True))
        settings = RedisSettings(**redis_of(out, "orchestrator"))
        client = stack.enter_context(client_of(settings, 5.0))
        wait_until(lambda: set_by(client, ports[0]), "the master", 60)
        replica: Any = redis.Redis("127.0.0.1", ports[1], username="admin", password="any")
        wait_until(lambda: replica.info("replication").get("master_link_status") == "up", "the replica that follows", 60)
        own = (out / "orchestrator" / "sentinel.password").read_text().strip()
        sentinel: Any = redis.Redis("127.0.0.1", asking, username="dcsup-asking", password=own)
        wait_until(lambda: sentinel.sentinel_master("m")["num-slaves"] == 1, "the Sentinel that knows both", 60)
        with pytest.raises(redis.exceptions.NoPermissionError):
            sentinel.execute_command("SENTINEL", "FAILOVER", "m")
        first.kill()
        wait_until(lambda: set_by(client, ports[1]), "the new master", 60)


def server_lines(out: Path, folder: Path, port: int, master: int | None) -> str:
    users = folder / "users.acl"
    users.write_text((out / "redis" / "users.acl").read_text() + ADMIN)
    lines = (out / "redis" / "redis.conf").read_text().replace("/etc/redis/users.acl", str(users))
    lines = lines.replace("/etc/redis", str(out / "redis")).replace("port 6379", f"port {port}").replace(" -::1", "")
    return lines + "repl-diskless-sync-delay 0\n" + (f"replicaof 127.0.0.1 {master}\n" if master is not None else "")


def sentinel_lines(out: Path, port: int, master: int) -> str:
    timing = "sentinel down-after-milliseconds m 500\nsentinel failover-timeout m 4000\n"
    rendered = (out / "redis" / "sentinel.conf").read_text()
    return f"port {port}\nbind 127.0.0.1\nsentinel monitor m 127.0.0.1 {master} 1\n{timing}{rendered}"


def set_by(client: Any, port: int) -> bool:
    """Whether a write reaches the server on this port."""
    try:
        return bool(client.set("dcsup:c1:owner", "x")) and client.connection_pool.get_connection().port == port
    except redis.RedisError:
        return False


def test_no_sentinel_that_knows_the_master(tmp_path: Path) -> None:
    """Named with what each said: nobody there, or another master's name."""
    with serving(tmp_path, "sentinel monitor other 127.0.0.1 1 1\n", sentinel=True) as sentinel:
        settings = RedisSettings(sentinels=["127.0.0.1:1", f"127.0.0.1:{sentinel.port}"], sentinel_master="m")
        with client_of(settings) as client, pytest.raises(Unreachable) as caught:
            client.ping()
    assert "names a master 'm' that is up" in str(caught.value)
    assert "refused" in str(caught.value) and "No such master" in str(caught.value)
