"""A Redis that speaks TLS only and wants certificates: what does not fit ends in one line that says what to do."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from statemachines.configuration import RedisSettings
from tests.cli.conftest import CONFIGURATION, Dcsup, dcsup, english
from tests.security.certificates import Authority
from tests.security.servers import debian_redis, free_port, listening, serving
from workers.redisclient import Unusable, client_of

__all__ = ["dcsup", "english"]  # fixtures

TLS = "port 0\ntls-port {port}\nbind 127.0.0.1\nsave ''\ntls-cert-file {cert}\ntls-key-file {key}\ntls-ca-cert-file {ca}\n"


@dataclass
class Site:
    """Servers, by what is wrong with their certificate, and files for clients."""

    folder: Path
    ports: dict[str, int]
    good: dict[str, str]
    """ca_file, cert_file and key_file with which the sound server is content."""
    other: dict[str, str]
    """Those of another authority."""

    def settings(self, server: str = "sound", scheme: str = "rediss", host: str = "127.0.0.1", **files: str | None) -> RedisSettings:
        table = {"url": f"{scheme}://{host}:{self.ports[server]}/0", **(self.good | files)}
        return RedisSettings(**{key: value for key, value in table.items() if value is not None})


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    binary = debian_redis()
    if binary is None:
        pytest.skip("needs the Debian package redis-server")
    with tempfile.TemporaryDirectory() as base, ExitStack() as stack:
        folder = Path(base)
        own, other = Authority.new(folder / "own"), Authority.new(folder / "other")
        expired, elsewhere = own.issue("expired", days=-1), own.issue("elsewhere", "DNS:elsewhere")
        issued = {"sound": own.issue("sound"), "expired": expired, "elsewhere": elsewhere}
        ports = {}
        for name, (cert, key) in issued.items():
            ports[name] = free_port()
            lines = TLS.format(port=ports[name], cert=cert, key=key, ca=own.ca)
            stack.enter_context(listening(folder / f"server-{name}", lines, ports[name], binary))
        ports["plain"] = stack.enter_context(serving(folder / "server-plain")).port
        yield Site(folder, ports, _files(own), _files(other))


def _files(authority: Authority) -> dict[str, str]:
    cert, key = authority.issue("client")
    return {"ca_file": str(authority.ca), "cert_file": str(cert), "key_file": str(key)}


def test_the_right_certificates_open_it(site: Site) -> None:
    """With the authority's and a certificate of its own a client is in, by address and by name."""
    for host in ("127.0.0.1", "localhost"):
        with client_of(site.settings(host=host)) as client:
            assert client.ping()


def wrong(site: Site) -> dict[str, tuple[RedisSettings, str]]:
    """What is wrong -> the settings, and what the one line says."""
    none: Any = {"cert_file": None, "key_file": None}
    theirs: Any = {key: site.other[key] for key in ("cert_file", "key_file")}
    plain: Any = {"ca_file": None, **none}
    return {
        "another authority": (site.settings(ca_file=site.other["ca_file"]), "name the right one with ca_file"),
        "expired": (site.settings("expired"), "has expired; give that server a new one"),
        "another host": (site.settings("elsewhere"), "is not for '127.0.0.1'; use the name"),
        "no certificate of ours": (site.settings(**none), "set cert_file and key_file"),
        "ours from another authority": (site.settings(**theirs), "accept the certificate in redis.cert_file"),
        "no TLS on our side": (site.settings(scheme="redis", **plain), "write rediss:// or tls = true"),
        "no TLS on its side": (site.settings("plain"), "is it the port for TLS?"),
    }


@pytest.mark.parametrize("what", [
    "another authority", "expired", "another host", "no certificate of ours", "ours from another authority", "no TLS on our side",
    "no TLS on its side",
])  # fmt: skip
def test_what_does_not_fit_says_what_to_do(site: Site, what: str, dcsup: Dcsup, tmp_path: Path) -> None:
    """One line with the remedy: in the log of whoever keeps trying, and from a command, which ends with 3."""
    settings, sentence = wrong(site)[what]
    with client_of(settings) as client, pytest.raises(redis.ConnectionError) as caught:
        client.ping()
    assert sentence in str(caught.value)
    lines = "\n".join(f'{key} = "{getattr(settings, key)}"' for key in ("ca_file", "cert_file", "key_file") if getattr(settings, key))
    config = tmp_path / "dcsup.toml"
    config.write_text(CONFIGURATION.format(url=settings.url).replace("[orchestrator]", f"{lines}\n[orchestrator]"))
    answer = dcsup("events", "--config", config)
    assert (answer.code, answer.out, answer.err.count("\n")) == (3, "", 1)
    assert sentence in answer.err


def test_files_that_cannot_be_used_are_named(site: Site, tmp_path: Path, dcsup: Dcsup) -> None:
    """Before anything is sent: which setting, which file, and what it should be; a command ends with 2."""
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_text("no certificate")
    cases = {
        "is not there": ({"ca_file": str(tmp_path / "nowhere.pem")}, "redis.ca_file: the file"),
        "is no certificate": ({"ca_file": str(rubbish)}, "holds no certificate"),
        "does not fit its key": ({"key_file": site.other["key_file"]}, "redis.cert_file"),
    }
    for files, sentence in cases.values():
        settings = site.settings(**files)
        with pytest.raises(Unusable, match=sentence):
            client_of(settings)
        lines = "\n".join(f'{key} = "{getattr(settings, key)}"' for key in ("ca_file", "cert_file", "key_file"))
        config = tmp_path / "dcsup.toml"
        config.write_text(CONFIGURATION.format(url=settings.url).replace("[orchestrator]", f"{lines}\n[orchestrator]"))
        for command in ("status", "orchestrator"):
            answer = dcsup(command, "--config", config)
            assert (answer.code, answer.err.count("\n")) == (2, 1)
            assert sentence in answer.err
