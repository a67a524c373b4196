"""dcsup.toml: every mistake at once, each on its line, and nothing told that the file does not say."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.settings import ConfigurationError, load, masked
from orchestrator.tomllines import lines_of

GOOD = """\
# A pair.
[redis]
url = "redis://127.0.0.1:6379/0"

[clusters.pair]
group = "failover"
nodes = ["n1", "n2"]

[clusters.pair.watch]
interval = "10s"

[[clusters.pair.services]]
name = "agent"
kind = "agent"

[[clusters.pair.services]]
name = "db"
kind = "server"

[node]
name = "n1"
cluster = "pair"
folder = "/var/lib/dcsup"

[node.services.agent]
command = ["dcagent"]
status = ["dcstatus"]

[node.services.db]
command = ["dcserver"]
status = ["dcstatus"]
"""


def mistakes(tmp_path: Path, text: str | bytes) -> list[tuple[int, str, str]]:
    """(line, where, sentence) of each mistake."""
    file = tmp_path / "dcsup.toml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigurationError) as caught:
        load(file)
    assert all(mistake.file == str(file) for mistake in caught.value.mistakes)
    return [(mistake.line, mistake.where, f"{mistake.found}; {mistake.expected}") for mistake in caught.value.mistakes]


def test_good_file_is_read_whole(tmp_path: Path) -> None:
    """What the file says is what comes out, durations as seconds; a byte order mark and Windows line ends do not matter."""
    for content in (GOOD.encode(), b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode()):
        (tmp_path / "dcsup.toml").write_bytes(content)
        configuration = load(tmp_path / "dcsup.toml")
        assert configuration.clusters["pair"].watch.interval == 10.0
        assert [service.name for service in configuration.clusters["pair"].services] == ["agent", "db"]
        assert configuration.node is not None
        assert configuration.node.services["db"].command == ["dcserver"]


ONE_MISTAKE = {
    "unknown key, with the nearest known": ("interval =", "intervall =", 10, "clusters.pair.watch.intervall", "did you mean interval?"),
    "unknown key, nothing near": ("interval =", "zzz =", 10, "clusters.pair.watch.zzz", "known: confirm, "),
    "unknown table": ("[clusters.pair.watch]", "[clusters.pair.wach]", 9, "clusters.pair.wach", "did you mean watch?"),
    "not a duration": ('"10s"', '"soon"', 10, "clusters.pair.watch.interval", 'found "soon"; a duration is a text like'),
    "negative duration": ('"10s"', "-1", 10, "clusters.pair.watch.interval", "found -1; a duration is not negative"),
    "no time at all": ('"10s"', "0", 10, "clusters.pair.watch.interval", "found 0; more than 0"),
    "wrong choice": ('kind = "agent"', 'kind = "client"', 14, "clusters.pair.services[0].kind", 'one of "agent", "server"'),
    "wrong type": ('group = "failover"', "group = 5", 6, "clusters.pair.group", "found 5; allowed: a text"),
    "not a name": ('group = "failover"', 'group = "Fail over"', 6, "clusters.pair.group", "a name is 1 to 32 of a-z"),
    "not a list": ('["n1", "n2"]', '"n1"', 7, "clusters.pair.nodes", "a list of texts"),
    "an element": ('["n1", "n2"]', '[\n  "n1",\n  7,\n]', 9, "clusters.pair.nodes[1]", "found 7; allowed: a text"),
    "an empty list": ('["dcagent"]', "[]", 26, "node.services.agent.command", "found []; at least 1 of them"),
    "missing key: the table's line": ('folder = "/var/lib/dcsup"\n', "", 20, "node.folder", "it is not there; required: a text"),
    "missing in an array of tables": ('kind = "server"\n', "", 16, "clusters.pair.services[1].kind", 'required: one of "agent", "server"'),
    "two nodes of one name": ('["n1", "n2"]', '["n1", "n1"]', 7, "clusters.pair.nodes[1]", "two nodes are called 'n1'"),
    "a node that begins another": ('["n1", "n2"]', '["n1", "n11"]', 7, "clusters.pair.nodes[0]", "'n1' is a prefix of 'n11'"),
    "two services of one name": ('name = "db"', 'name = "agent"', 17, "clusters.pair.services[1].name", "two services are called 'agent'"),
    "a node of another cluster": ('cluster = "pair"', 'cluster = "other"', 22, "node.cluster", "no [clusters.other] table"),
    "a node that the cluster lacks": ('name = "n1"', 'name = "n3"', 21, "node.name", "'n3' is not among the nodes of cluster 'pair'"),
    "an unknown key below a name": (
        "[node.services.db]",
        "[node.services.db]\nx = 1 #",
        30,
        "node.services.db.x",
        "known: command, start, status, stop",
    ),
    "commands of an unknown service": (
        "[node.services.db]",
        '[node.services.dc]\ncommand = ["x"]\nstatus = ["x"]\n[node.services.db]',
        29,
        "node.services.dc",
        "cluster 'pair' has no service 'dc'",
    ),
    "an agent without its command": (
        'command = ["dcagent"]\n',
        "",
        25,
        "node.services.agent",
        "a service of kind 'agent' needs 'command'",
    ),
    "a start command for an agent": (
        'command = ["dcagent"]\n',
        'command = ["dcagent"]\nstart = ["x"]\n',
        27,
        "node.services.agent.start",
        "a service of kind 'agent' has no 'start'",
    ),
    "verbs of a command": (
        'kind = "agent"',
        'kind = "command"\nverbs = { start = "recover" }',
        15,
        "clusters.pair.services[0].verbs",
        "is started with its start command",
    ),
    "databases of a server": ('kind = "server"', 'kind = "server"\ndatabases = "local"', 19, "clusters.pair.services[1].databases", "(G2)"),
    "two endpoints of one name": (
        "[clusters.pair.watch]",
        'endpoints = [\n{ name = "a", host = "h", port = 1 },\n{ name = "a", host = "h", port = 2 },\n]\n[clusters.pair.watch]',
        11,
        "clusters.pair.endpoints[1].name",
        "two endpoints are called 'a'",
    ),
    "a server's name for no node": (
        "[clusters.pair.watch]",
        'clusterpro = { servers = { n9 = "NODE9" } }\n[clusters.pair.watch]',
        9,
        "clusters.pair.clusterpro.servers.n9",
        "there is no node 'n9'",
    ),
    "an endpoint of no service": (
        "[clusters.pair.watch]",
        'endpoints = [{ name = "a", host = "h", port = 1, service = "web" }]\n[clusters.pair.watch]',
        9,
        "clusters.pair.endpoints[0].service",
        "there is no service 'web'",
    ),
    "both kinds of Redis": ("[redis]\n", '[redis]\nembedded = "data"\n', 2, "redis", "set one of url"),
    "not a Redis address": ('"redis://127.0.0.1:6379/0"', '"localhost:6379"', 3, "redis.url", "an address such as redis://"),
    "dotted key": ("[redis]\nurl = ", "redis.url = 1 #", 2, "redis.url", "found 1; allowed: a text"),
    "inline table": (
        '[redis]\nurl = "redis://127.0.0.1:6379/0"',
        'redis = { url = "redis://h", ulr = 1 }',
        2,
        "redis.ulr",
        "did you mean url?",
    ),
    "not a table": ('[redis]\nurl = "redis://127.0.0.1:6379/0"', 'redis = "here"', 2, "redis", 'found "here"; allowed: a table'),
}


@pytest.mark.parametrize(("old", "new", "line", "where", "sentence"), ONE_MISTAKE.values(), ids=ONE_MISTAKE.keys())
def test_one_mistake(tmp_path: Path, old: str, new: str, line: int, where: str, sentence: str) -> None:
    """Each kind of mistake is told once: its line, its dotted path, what was found and what is allowed."""
    assert old in GOOD
    (found,) = mistakes(tmp_path, GOOD.replace(old, new, 1))
    assert found[:2] == (line, where)
    assert sentence in found[2]


def test_agent_after_server_is_a_mistake(tmp_path: Path) -> None:
    """G23: the agent on the server's machine must be listed, and so started, before the server."""
    swapped = GOOD.replace('"agent"\nkind = "agent"', '"x"\nkind = "server"').replace('"db"\nkind = "server"', '"y"\nkind = "agent"')
    told = mistakes(tmp_path, swapped)
    assert (12, "clusters.pair.services[0]") in [one[:2] for one in told]
    assert any("(G23)" in one[2] for one in told)


def test_every_mistake_at_once(tmp_path: Path) -> None:
    """Mistakes of all kinds, in all tables, come in one answer and in the order of the file, clashes between settings included."""
    text = (
        GOOD.replace('"10s"', '"soon"')
        .replace('["n1", "n2"]', '["n1", "n11"]')
        .replace('name = "db"', 'name = "agent"')
        .replace('kind = "agent"', 'kind = "client"')
        .replace('cluster = "pair"', 'cluster = "other"')
        .replace("[redis]", "[redis]\nport = 1")
    )
    assert [one[:2] for one in mistakes(tmp_path, text)] == [
        (3, "redis.port"),
        (8, "clusters.pair.nodes[0]"),
        (11, "clusters.pair.watch.interval"),
        (15, "clusters.pair.services[0].kind"),
        (18, "clusters.pair.services[1].name"),
        (23, "node.cluster"),
    ]


def test_one_mistake_does_not_bring_others(tmp_path: Path) -> None:
    """A stand-in for what is wrong is never blamed: a bad node name does not make the [node] table wrong as well."""
    assert [one[1] for one in mistakes(tmp_path, GOOD.replace('["n1", "n2"]', '["n1", "N2"]'))] == ["clusters.pair.nodes[1]"]
    assert [one[1] for one in mistakes(tmp_path, GOOD.replace("[clusters.pair", "[clusters.Pair"))] == ["clusters.Pair"]
    assert [one[1] for one in mistakes(tmp_path, GOOD.replace('name = "db"', 'name = "agent"'))] == ["clusters.pair.services[1].name"]
    assert [one[1] for one in mistakes(tmp_path, GOOD.replace('nodes = ["n1", "n2"]\n', ""))] == ["clusters.pair.nodes"]


SYNTAX = {
    "no value": ("group = \n", 6, "column"),
    "twice": ('group = "a"\ngroup = "b"\n', 7, "Cannot overwrite a value"),
    "open text": ('group = "a\n', 6, "column"),
    "open list, told where it cannot go on": ("group = [1,\n", 7, "Invalid value"),
}


@pytest.mark.parametrize(("line_6", "line", "what"), SYNTAX.values(), ids=SYNTAX.keys())
def test_syntax_error_is_told_alone(tmp_path: Path, line_6: str, line: int, what: str) -> None:
    """The first syntax error, with line and column, and nothing about what follows it."""
    (found,) = mistakes(tmp_path, GOOD.replace('group = "failover"\n', line_6))
    assert found[:2] == (line, "")
    assert what in found[2]
    assert "column" in found[2]


def test_wrong_encodings(tmp_path: Path) -> None:
    """A Shift_JIS file, as Windows editors write it, and a UTF-16 one are recognised; other bytes have their line."""
    comment = "# データ\n" + GOOD
    assert mistakes(tmp_path, comment.encode("cp932")) == [
        (1, "", "the byte 0x83 is not UTF-8; it looks like Shift_JIS (cp932): save the file as UTF-8")
    ]
    assert mistakes(tmp_path, comment.encode("utf-16")) == [(1, "", "the file is UTF-16; save it as UTF-8")]
    assert mistakes(tmp_path, b"# a\n# \x81 \n") == [(2, "", "the byte 0x81 is not UTF-8; save the file as UTF-8")]


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    """No file, a folder, a file of somebody else: said in words."""
    for path, words in ((tmp_path / "none.toml", "no such file"), (tmp_path, "cannot be read")):
        with pytest.raises(ConfigurationError, match=words):
            load(path)
    secret = tmp_path / "secret.toml"
    secret.write_text(GOOD)
    secret.chmod(0)
    if sys.platform == "win32" or os.geteuid() == 0:
        pytest.skip("this user may read everything")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(secret)


def test_an_empty_file_lacks_two_tables(tmp_path: Path) -> None:
    """What is required is told even where there is no line to point at."""
    assert [one[:2] for one in mistakes(tmp_path, "")] == [(0, "clusters"), (0, "redis")]


def test_passwords_are_not_shown(tmp_path: Path) -> None:
    """Neither in a refused address, nor in a key that is not known."""
    text = GOOD.replace("redis://127", "http://user:geheim@127").replace("[node]\n", '[node]\npassword = "geheim"\n')
    told = mistakes(tmp_path, text)
    assert [one[1] for one in told] == ["redis.url", "node.password"]
    assert "geheim" not in str(told)
    assert masked("redis://u:p@ss:w@h:1/0?x=1") == "redis://u:***@h:1/0?x=1"
    assert masked("unix:///s?db=1&password=p&x=1") == "unix:///s?db=1&password=***&x=1"


def test_lines_of_every_spelling() -> None:
    """Tables, arrays of tables with tables below them, dotted and quoted keys, inline tables, elements."""
    lines = lines_of(b'a.b."c d" = 1\n[t]\nx = { y = { z = 1 } }\nl = [\n  1,\n  { k = 2 },\n]\n[[t.s]]\n[t.s.u]\nv = 1\n[[t.s]]\nw = 1\n')
    assert lines[("a", "b", "c d")] == 1
    assert lines[("t", "x", "y", "z")] == 3
    assert lines[("t", "l", 0)] == 5
    assert lines[("t", "l", 1, "k")] == 6
    assert lines[("t", "s", 0)] == 8
    assert lines[("t", "s", 0, "u", "v")] == 10
    assert lines[("t", "s", 1, "w")] == 12


VALUES = st.sampled_from(
    ["1", "-1", '"x"', '"N 1"', "[]", "[1]", '["n1", "n11"]', "{}", "{ a = 1 }", "true", "nan", "2026-08-01", '"10s"', '""']
)
LINES = [n for n, line in enumerate(GOOD.splitlines()) if " = " in line]


@settings(max_examples=150, deadline=None)
@given(changes=st.dictionaries(st.sampled_from(LINES), VALUES, min_size=1, max_size=6), gone=st.sets(st.sampled_from(LINES), max_size=3))
def test_any_file_ends_in_values_or_mistakes(tmp_path_factory: pytest.TempPathFactory, changes: dict[int, str], gone: set[int]) -> None:
    """Whatever stands in place of values: the reader comes to an end, with a configuration or with mistakes that have a line."""
    lines = GOOD.splitlines()
    for number, value in changes.items():
        lines[number] = f"{lines[number].partition(' = ')[0]} = {value}"
    kept = "\n".join(line for number, line in enumerate(lines) if number not in gone)
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_text(kept)
    try:
        load(file)
    except ConfigurationError as error:
        assert error.mistakes
        assert all(mistake.line > 0 for mistake in error.mistakes)
        places = [(mistake.where, str(mistake.expected)) for mistake in error.mistakes]
        assert len(set(places)) == len(places)
        assert "stand-in" not in str(error)
