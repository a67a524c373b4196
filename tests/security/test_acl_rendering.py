"""`dcsup render redis` as an operator meets it: what is written, what is kept, what is never shown."""

from __future__ import annotations

import hashlib
import json
import stat
import sys
import tomllib
from pathlib import Path

import pytest

from orchestrator.settings import load
from statemachines.signing import node_keys
from tests.cli.conftest import Answer, Dcsup, dcsup, english
from tests.security.installation import CLUSTERS, TABLES

__all__ = ["dcsup", "english"]  # fixtures

URL = 'url = "redis://192.0.2.7:6380/0"'
PEOPLE = {"orchestrator", "operator", "viewer"}
NODES = {f"{cluster}_{node}" for cluster, nodes in CLUSTERS.items() for node in nodes}


def rendered(dcsup: Dcsup, folder: Path, *options: str, redis: str = URL) -> tuple[Path, Answer]:
    config = folder / "site.toml"
    config.write_text(f"[redis]\n{redis}\n{TABLES}")
    return folder / "out", dcsup("render", "redis", "--config", config, "--out", folder / "out", *options)


def secrets_in(out: Path) -> dict[str, list[str]]:
    files = [*out.glob("*/*.password"), *out.glob("*/*.key")]
    return {file.relative_to(out).as_posix(): file.read_text().split() for file in files}


def good(out: Path, user: str) -> list[str]:
    """The hashes of the passwords with which the user gets in."""
    line = next(line for line in (out / "redis" / "users.acl").read_text().splitlines() if line.startswith(f"user {user} "))
    return [word[1:] for word in line.split() if word.startswith("#")]


def hashed(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()


def test_one_folder_a_machine(dcsup: Dcsup, tmp_path: Path) -> None:
    """Each with its own password and keys, which nobody else can read, and with tables that fit into its dcsup.toml."""
    out, answer = rendered(dcsup, tmp_path)
    assert answer.code == 0
    assert {path.name for path in out.iterdir() if path.is_dir()} == PEOPLE | NODES | {"redis"}
    for machine in PEOPLE | NODES:
        (tmp_path / "machine.toml").write_text((out / machine / "redis.toml").read_text().replace("[node.key]", "[elsewhere]") + TABLES)
        tables = tomllib.loads((tmp_path / "machine.toml").read_text())
        if machine in PEOPLE:
            assert load(tmp_path / "machine.toml").redis.password_file == "/etc/dcsup/redis.password"
        password = (out / machine / "redis.password").read_text().strip()
        assert good(out, tables["redis"]["username"]) == [hashed(password)]
    keys = (out / "orchestrator" / "c1.key").read_text().split()
    assert tuple((out / "c1_n2" / "node.key").read_text().split()) == node_keys(keys, "c1", "n2")
    assert len({secret for lines in secrets_in(out).values() for secret in lines}) == len(secrets_in(out))


@pytest.mark.skipif(sys.platform == "win32", reason="rights are access lists there")
def test_nobody_else_can_read_it(dcsup: Dcsup, tmp_path: Path) -> None:
    """Files 0600, folders 0700, from the first byte on, whatever the umask."""
    out, _ = rendered(dcsup, tmp_path)
    for path in [out, *out.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_secrets_are_kept_and_never_shown(dcsup: Dcsup, tmp_path: Path) -> None:
    """Rendering again keeps them and says so; no secret appears in either output, nor in a file that is not its own."""
    out, first = rendered(dcsup, tmp_path)
    before = secrets_in(out)
    _, again = rendered(dcsup, tmp_path)
    assert secrets_in(out) == before
    assert "new passwords and keys for: dcsup-orchestrator" in first.out
    assert "kept, for they were there already: dcsup-orchestrator" in again.out and "new passwords" not in again.out
    shown = first.out + first.err + again.out + again.err
    others = "".join(path.read_text() for path in out.rglob("*") if path.is_file() and path.suffix not in (".password", ".key"))
    for secrets in before.values():
        assert not [one for one in secrets if one in shown or one in others]


def test_rotating_lets_the_old_ones_be_good_for_now(dcsup: Dcsup, tmp_path: Path) -> None:
    """New passwords and keys first; the ones before still open and still sign, until the next rendering and the next rotation."""
    out, _ = rendered(dcsup, tmp_path)
    before = secrets_in(out)
    _, answer = rendered(dcsup, tmp_path, "--rotate", "--json")
    said = json.loads(answer.out)
    assert set(said["secrets"]["made"]) >= NODES and said["secrets"]["kept"] == []
    after = secrets_in(out)
    for file, secrets in after.items():
        assert secrets[0] not in before[file], file
        assert secrets[1:] == (before[file] if file.endswith(".key") else []), file
    for user in NODES:
        file = f"{user}/redis.password"
        assert good(out, user) == [hashed(after[file][0]), hashed(before[file][0])]
    rendered(dcsup, tmp_path)
    assert secrets_in(out) == after
    for user in NODES:
        assert good(out, user) == [hashed(after[f"{user}/redis.password"][0])]


def test_a_password_of_the_sites_own_is_taken(dcsup: Dcsup, tmp_path: Path) -> None:
    """What somebody wrote into a password's file is what the rendered users have."""
    out, _ = rendered(dcsup, tmp_path)
    (out / "viewer" / "redis.password").write_text("a-phrase-of-ours\n")
    _, answer = rendered(dcsup, tmp_path)
    assert good(out, "dcsup-viewer") == [hashed("a-phrase-of-ours")]
    (out / "redis" / "users.acl").write_text("user mine on nopass\n")
    _, answer = rendered(dcsup, tmp_path)
    assert "redis/users.acl had been changed by hand: that is kept as redis/users.acl.kept-1" in answer.err
    (out / "viewer" / "redis.password").write_bytes(b"\xff\xfe")
    _, answer = rendered(dcsup, tmp_path)
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "is no text" in answer.err


def test_the_server_keeps_everything_and_knows_who_asks(dcsup: Dcsup, tmp_path: Path) -> None:
    """Every change on the disk before it is answered, nothing thrown out, nobody without a name; with --tls no other way in."""
    out, _ = rendered(dcsup, tmp_path)
    lines = (out / "redis" / "redis.conf").read_text().splitlines()
    for line in ("appendonly yes", "appendfsync always", "maxmemory-policy noeviction", "protected-mode yes", "port 6380",
                 "bind 127.0.0.1 -::1 192.0.2.7", "aclfile /etc/redis/users.acl"):  # fmt: skip
        assert line in lines
    rendered(dcsup, tmp_path, "--tls", "--platform", "windows")
    lines = (out / "redis" / "redis.conf").read_text().splitlines()
    assert {"port 0", "tls-port 6380", "tls-auth-clients yes"} <= set(lines)
    table = tomllib.loads((out / "c1_n1" / "redis.toml").read_text())["redis"]
    assert (table["url"], table["ca_file"]) == ("rediss://192.0.2.7:6380/0", "C:\\ProgramData\\dcsup\\ca.pem")
    assert "openssl req -x509" in (out / "README.ja.md").read_text("utf-8")
    assert "証明書" in (out / "README.ja.md").read_text("utf-8")


@pytest.mark.parametrize("redis", ['embedded = "data"', 'url = "unix:///run/redis.sock"'])
def test_a_server_of_one_machine_is_refused(dcsup: Dcsup, tmp_path: Path, redis: str) -> None:
    """There is nobody to let in: one line with what to name instead, and nothing is written."""
    out, answer = rendered(dcsup, tmp_path, redis=redis)
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "name one that the nodes reach" in answer.err
    assert not out.exists()
