"""Tree to model: both spellings, any order, defaults kept apart, nonsense told with its place, secrets nowhere."""

from __future__ import annotations

import pickle
import random
import re
import xml.etree.ElementTree as ET  # our own sample, written anew in another order
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.clpconf.model import ClpConf
from orchestrator.clpconf.parsing import parse, program_of
from orchestrator.clpconf.reading import ClpConfError
from tests.clpconf.sample import CANARY, SAMPLE, sample


def without_places(conf: ClpConf) -> str:
    text = re.sub(r"'place': \{'path': '[^']*', 'line': \d+\}", "", str(asdict(conf)))
    return re.sub(r"'place': \{'path': \"[^\"]*\", 'line': \d+\}", "", text)


def test_the_sample_is_read() -> None:
    """Everything that import and check ask for is there."""
    conf = parse(sample())
    assert (conf.cluster, conf.os, conf.version, conf.encoding, conf.api.value) == ("Pair", "windows", "4.3.0-1", "cp932", True)
    assert [(one.name, one.priority, one.addresses) for one in conf.servers] == [("NodeA", 0, ("10.0.0.1",)), ("NodeB", 1, ("10.0.0.2",))]
    group = conf.groups[0]
    assert (group.name, group.order) == ("failover1", ("NodeA", "NodeB"))
    by_key = {one.key: one for one in conf.resources}
    assert by_key["fip@fip1"].address.value == "10.0.0.9"
    assert by_key["sd@sd1"].volume.value == "E:"
    assert by_key["script@script1"].depends.value == ("sd1", "fip1")
    assert by_key["script@script1"].normal_start.value == "0"
    assert by_key["appli@appli1"].start_path.value == "C:\\Program Files\\site\\watch.bat"
    monitor = conf.monitors[0]
    assert (monitor.name, monitor.target.value, monitor.failovers.value, monitor.restarts.value) == ("appliw1", "appli1", 1, 0)
    assert [(one.module, one.id, one.calls_dcsup) for one in conf.alerts] == [("rc", "60", True)]
    assert conf.findings == ()


def test_a_missing_value_is_the_default_or_unknown_never_given() -> None:
    """Only values that differ from the default are in the file (CLUSTERPRO.md, section 5)."""
    bare = parse(
        b'<root><server name="a"/><group name="g"><resource name="script@s"/></group>'
        b'<resource><script name="s"/></resource><monitor><appliw name="w"/></monitor></root>'
    )
    script, group, monitor = bare.resources[0], bare.groups[0], bare.monitors[0]
    assert (script.start_timeout.value, script.start_timeout.origin) == (1800.0, "default")
    assert (script.act_timeout.value, script.act_timeout.origin) == (1980.0, "default")
    assert (script.deact_action.value, script.deact_action.origin) == (4, "default")
    assert (group.auto_start.value, group.auto_failback.value, group.auto_start.origin) == (True, False, "default")
    for unknown in (script.depends, script.normal_start, script.resident, monitor.failovers, monitor.interval, bare.api):
        assert (unknown.value, unknown.origin) == (None, "unknown")
    assert bare.os is None
    given_value = parse(sample()).resources[2].start_timeout
    assert (given_value.value, given_value.origin) == (1800.0, "file")


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_elements_does_not_matter(seed: int) -> None:
    """Every element's children shuffled: the same model."""
    root = ET.fromstring(SAMPLE.partition("\n")[2])
    chance = random.Random(seed)

    def ordered(element: ET.Element) -> None:
        """Shuffled by kind: the order among things of one kind may mean something."""
        children = list(element)
        tags = sorted({child.tag for child in children})
        chance.shuffle(tags)
        element[:] = [child for tag in tags for child in children if child.tag == tag]
        for child in element:
            ordered(child)

    ordered(root)
    expected, found = parse(sample()), parse(ET.tostring(root, encoding="cp932"))
    assert {one.key: (one.depends.value, one.act_timeout.value) for one in found.resources} == {
        one.key: (one.depends.value, one.act_timeout.value) for one in expected.resources
    }
    assert [one.name for one in found.servers] == ["NodeA", "NodeB"]
    assert [one.order for one in found.groups] == [("NodeA", "NodeB")]
    assert {one.name for one in found.monitors} == {one.name for one in expected.monitors}


def test_attributes_are_taken_for_elements() -> None:
    """`order="0"` and `<order>0</order>` say the same; so do a policy with servers in it, and a name as an element."""
    spelt = parse(
        sample(
            ('<policy name="NodeA"><order>0</order></policy><policy name="NodeB"><order>1</order></policy>',
             '<policy><server name="NodeB"><order>1</order></server><server name="NodeA" order="0"/></policy>'),
            ('<server name="NodeA"><priority>0</priority>', '<server priority="0"><name>NodeA</name>'),
            ("<act><timeout>1980</timeout><action>1</action></act>", '<act timeout="1980" action="1"/>'),
        )
    )  # fmt: skip
    assert without_places(spelt) == without_places(parse(sample()))


@pytest.mark.parametrize(
    ("old", "new", "path", "words"),
    [
        ("<start>1800</start>", "<start>soon</start>", "/root/resource/script@script1/parameters/timeout/start", "a whole number"),
        ("<start>1800</start>", "<start>-5</start>", "/root/resource/script@script1/parameters/timeout/start", "a whole number"),
        ("<failback>0</failback>", "<failback>no</failback>", "/root/group@failover1/failback", "0 or 1"),
        ("<normalval>0<", "<normalval>fine<", "/root/resource/script@script1/parameters/act/normalval", "return values"),
        ("<serveros>windows<", "<serveros>beos<", "/root/all/serveros", "'windows' or 'linux'"),
        ('<fip name="fip1">', "<fip>", "/root/resource/fip", "no name"),
        ('<resource name="sd@sd1"/>', '<resource name="sd@sd9"/>', "/root/group@failover1", "'sd@sd9'"),
        ('<policy name="NodeB">', '<policy name="NodeC">', "/root/group@failover1", "'NodeC'"),
        ('<depend name="sd1"/>', '<depend name="sd9"/>', "/root/resource/script@script1/depend@sd9", "'sd9'"),
        ('<server name="NodeB">', '<server name="NodeA">', "/root/server@NodeA", "twice"),
    ],
)
def test_what_makes_no_sense_is_told_with_its_place(old: str, new: str, path: str, words: str) -> None:
    """The rest is used."""
    raw = sample((old, new))
    conf = parse(raw)
    told = [one for one in conf.findings if words in str(one.said)]
    assert [one.place.path for one in told] == [path]
    assert 0 < told[0].place.line <= raw.count(b"\n") + 1
    assert conf.groups[0].name == "failover1"


def test_a_value_that_makes_no_sense_is_unknown() -> None:
    """Never the default: somebody wanted something else."""
    timeout = parse(sample(("<start>1800</start>", "<start>soon</start>"))).resources[2].start_timeout
    assert (timeout.value, timeout.origin) == (None, "unknown")


def test_no_secret_reaches_the_model_or_its_findings() -> None:
    """Accounts, passwords, mail, SNMP, arguments of programs, comments: no canary comes through, by any way of looking."""
    conf = parse(sample(("<start>1800</start>", f"<start>{CANARY}-number</start>"), ("<serveros>windows", f"<serveros>{CANARY}-os")))
    assert len(conf.findings) == 2
    assert CANARY not in repr(conf) + str(asdict(conf)) + " ".join(str(one.said) for one in conf.findings)
    assert CANARY.encode() not in pickle.dumps(asdict(conf))


def test_no_secret_reaches_an_exception() -> None:
    """A file that breaks off inside a password tells the place, not the password."""
    raw = sample()
    for end in range(0, len(raw), 97):
        try:
            conf = parse(raw[:end])
        except ClpConfError as error:
            assert CANARY not in str(error)
            assert CANARY not in repr(error.__context__)
        else:
            assert CANARY not in repr(conf)


@pytest.mark.parametrize(
    ("command", "program"),
    [
        ('"C:\\Program Files\\x y\\watch.bat" /p secret', "C:\\Program Files\\x y\\watch.bat"),
        ("C:\\Program Files\\x y\\watch.bat /p secret", "C:\\Program Files\\x y\\watch.bat"),
        ("/opt/site/watch.sh --password secret", "/opt/site/watch.sh"),
        ("watch secret", "watch"),
        ("start.bat", "start.bat"),
        ("", ""),
    ],
)
def test_of_a_command_line_only_the_program_is_kept(command: str, program: str) -> None:
    """Arguments may hold a password."""
    assert program_of(command) == program


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(SAMPLE)), st.binary(max_size=6)), max_size=8), st.booleans())
def test_any_damage_ends_in_a_model_or_a_refusal(damages: list[tuple[int, bytes]], cut: bool) -> None:
    """Bytes put in, in place or over others: never another exception."""
    raw = sample()
    for at, bytes_ in damages:
        raw = raw[:at] + bytes_ + raw[at + (len(bytes_) if cut else 0) :]
    try:
        conf = parse(raw)
    except ClpConfError:
        return
    assert isinstance(conf.findings, tuple)


def test_a_flood_of_nonsense_is_told_in_part() -> None:
    """A file with thousands of mistakes does not become thousands of lines."""
    conf = parse(b"<root>" + b"<server/>" * 5000 + b"</root>")
    assert len(conf.findings) == 201
    assert "only the first 200" in str(conf.findings[-1].said)


def test_long_attacks_on_patterns_end_soon() -> None:
    """Text that makes a careless pattern run for hours is read at once."""
    evil = "dcsup " * 300_000
    conf = parse(sample(("C:\\dcsup\\dcsup.exe hook alert", evil), ('"C:\\Program Files', '\\"' + "a" * 500_000)))
    assert conf.groups[0].name == "failover1"
