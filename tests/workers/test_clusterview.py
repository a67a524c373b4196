"""Reading CLUSTERPRO's print-outs (CLUSTERPRO.md, 2.4)."""

from __future__ import annotations

import pytest

from deploy.sandbox.standins.clp_commands import render_status
from statemachines.configuration import ClusterproSettings, ClusterSettings, ServiceSettings
from workers.clusterview import group_argv, in_our_names, parse_clpgrp, parse_clpstat, status_argv, with_active
from workers.views import View, state_of

NODES = ["node1", "node2"]

PLAIN = """\
 ========================  CLUSTER STATUS  ===========================
  Cluster : demo
  <server>
   *node1 ...........: Online           comment text
      lankhb1        : Normal           Kernel Mode LAN Heartbeat
      pingnp1        : Normal           ping resolution
    node2 ...........: Offline          
      lankhb1        : Offline          Kernel Mode LAN Heartbeat
  <group>
    other ...........: Offline          
      current        : node2
    failover1 .......: Online           
      current        : node1
      fip1           : Online           
      script1        : Online           
  <monitor>
    fipw1            : Normal           
    failover1        : Offline
 =====================================================================
"""


def long(group: str = "failover1", state: str = "Online", current: str = "node1", comment: str = "") -> str:
    """The wide form: the colon at column 38."""
    return (
        " ====  CLUSTER STATUS  ====\n  Cluster : demo\n  <server>\n"
        f"   *{'node1 '.ljust(33, '.')}: {'Online':<17}{comment}\n    {'node2 '.ljust(33, '.')}: {'Caution':<17}\n"
        f"  <group>\n    {(group + ' ').ljust(33, '.')}: {state:<17}{comment}\n      {'current':<31}: {current}\n"
        f"      {'script1':<31}: Online Failure\n  <monitor>\n    {'userw':<33}: Normal\n ====\n"
    )


def test_the_plain_form_is_read() -> None:
    """Servers, the group's state and where it is; other groups and monitors of the same name are left alone."""
    reading = parse_clpstat(PLAIN, "failover1", NODES)
    assert reading.view == View(
        "online", "node1", {"node1": "online", "node2": "offline"}, {"fipw1": "normal", "failover1": "offline"},
        {"fip1": "online", "script1": "online"}, suspended=False,
    )  # fmt: skip
    assert reading.faults == ()


def test_the_long_form_is_read() -> None:
    """The wide form differs in the columns only."""
    assert parse_clpstat(long(), "failover1", NODES).view == View(
        "online", "node1", {"node1": "online", "node2": "caution"}, {"userw": "normal"}, {"script1": "online-failure"}, suspended=False
    )


@pytest.mark.parametrize(
    ("words", "state"),
    [
        ("Online Pending", "online-pending"), ("Offline Pending", "offline-pending"), ("Online Failure", "online-failure"),
        ("Offline Failure", "offline-failure"), ("Offline", "offline"), ("起動済", "online"), ("停止済", "offline"), ("不明", "unknown"),
    ],
)  # fmt: skip
def test_states_of_two_words_and_other_languages(words: str, state: str) -> None:
    """The longest known phrase counts, with a comment behind it or without."""
    for comment in ("", "Pending orders database", "業務グループ（本番） 待機"):
        assert parse_clpstat(long(state=words, comment=comment), "failover1", NODES).view.group_state == state


def test_a_group_that_is_nowhere_has_no_current() -> None:
    """`None` is CLUSTERPRO's word for it."""
    assert parse_clpstat(long(state="Offline", current="None"), "failover1", NODES).view.current is None


def test_long_names() -> None:
    """Whole with --long; cut at 16 characters without, and then matched with the one configured name that begins so."""
    name = "container-recovery-group"
    assert parse_clpstat(long(group=name), name, NODES).view.group_state == "online"
    cut = PLAIN.replace("failover1 .......", "container-recove ")
    assert parse_clpstat(cut, name, NODES).view.group_state == "online"
    cut = PLAIN.replace("node2 ...........", "datacoordinator- ")
    servers = parse_clpstat(cut, "failover1", ["node1", "datacoordinator-b"]).view.servers
    assert servers == {"node1": "online", "datacoordinator-b": "offline"}
    assert "datacoordinator-" in parse_clpstat(cut, "failover1", ["datacoordinator-a", "datacoordinator-b"]).view.servers


def test_names_in_capitals_are_the_configured_ones() -> None:
    """Windows host names often are."""
    view = parse_clpstat(PLAIN.replace("node1", "NODE1").replace("failover1", "Failover1"), "failover1", NODES).view
    assert (view.group_state, view.current, view.servers["node1"]) == ("online", "node1", "online")


GARBAGE = ["", "Command failed.\n", "\x00\x01\x02", "<group>\n failover1 Online\n", PLAIN.replace("failover1", "another")]


@pytest.mark.parametrize("text", GARBAGE)
def test_garbage_is_unknown(text: str) -> None:
    """Nothing is guessed: no state, no place, not even "not suspended" where nothing says so; what is missing is said with its place."""
    reading = parse_clpstat(text, "failover1", NODES)
    assert (reading.view.group_state, reading.view.current, reading.view.double_activation) == ("unknown", None, False)
    assert any("<group>" in fault for fault in reading.faults)
    assert reading.view.suspended is None or reading.view.servers


def test_missing_sections_and_unknown_words_are_said() -> None:
    """Each fault names its place; what could be read is there all the same."""
    reading = parse_clpstat(PLAIN[PLAIN.index("  <group>") :], "failover1", NODES)
    assert (reading.view.current, reading.view.servers) == ("node1", {})
    assert reading.faults == ("clpstat: no server in <server>",)
    reading = parse_clpstat(PLAIN.replace("failover1 .......: Online", "failover1 .......: Levitating"), "failover1", NODES)
    assert (reading.view.group_state, reading.view.current) == ("unknown", "node1")
    assert reading.faults == ("clpstat: <group> failover1: the state is unknown, or a word that dcsup does not know",)


def test_an_all_offline_table_is_no_suspension_and_no_place() -> None:
    """What newer versions print where the cluster service is stopped."""
    text = PLAIN.replace("Online ", "Offline").replace("Normal ", "Offline").replace("current        : node1", "current        : None")
    reading = parse_clpstat(text, "failover1", NODES)
    assert reading.view == View(
        "offline", None, {"node1": "offline", "node2": "offline"}, {"fipw1": "offline", "failover1": "offline"},
        {"fip1": "offline", "script1": "offline"},
    )  # fmt: skip
    assert reading.faults == ()


@pytest.mark.parametrize("second", ["node2", "node1, node2", "NODE2"])
def test_two_places_behind_current_are_a_double_activation(second: str) -> None:
    """Whether the word stands there twice or names two servers."""
    line = "      current        : {}\n"
    view = parse_clpstat(PLAIN.replace(line.format("node1"), line.format("node1") + line.format(second)), "failover1", NODES).view
    assert (view.current, view.double_activation) == ("node1", True)
    twice = PLAIN.replace("      current        : node1\n", "      current        : node1\n" * 2)
    assert not parse_clpstat(twice, "failover1", NODES).view.double_activation


def test_comments_in_any_encoding_do_no_harm() -> None:
    """A Japanese comment, in cp932 or UTF-8, read as either: the state before it is the same."""
    text = long(comment="業務グループ：本番（ソ表能）")
    for written in ("cp932", "utf-8"):
        for read in ("cp932", "utf-8"):
            reading = parse_clpstat(text.encode(written).decode(read, "replace"), "failover1", NODES)
            assert (reading.view.group_state, reading.view.current, reading.view.servers["node1"]) == ("online", "node1", "online")


@pytest.mark.parametrize(
    ("text", "suspended"),
    [
        (PLAIN, False),
        (PLAIN.replace(": Online           comment", ": Suspend          comment"), True),
        (PLAIN.replace(": Online           comment", ": Suspend(Isolated)"), True),
        (PLAIN.replace(": Online           comment", ": サスペンド"), True),
        (PLAIN.replace("  <server>\n", "  Status  : Suspend\n  <server>\n"), True),
        (PLAIN.replace("Cluster : demo", "Cluster : suspend"), False),
        (PLAIN.replace("fipw1            : Normal", "fipw1            : Suspend"), None),
        (PLAIN.replace("comment text", "Suspend"), False),
        ("", None),
    ],
)
def test_whether_the_cluster_is_suspended(text: str, suspended: bool | None) -> None:
    """A server's word or the head's says so, never a name or a comment; a monitor alone can be suspended by itself: that leaves it open."""
    assert parse_clpstat(text, "failover1", NODES).view.suspended is suspended


def test_a_whole_name_counts_more_than_a_cut_one() -> None:
    """Another group's whole name may be how ours begins: it is not taken for ours, wherever it stands."""
    theirs = "    failover-group-a : Offline\n      current        : None\n"
    ours = "    failover-group-abc : Online\n      current        : node1\n"
    for blocks in (theirs + ours, ours + theirs):
        view = parse_clpstat("  <group>\n" + blocks, "failover-group-abc", NODES).view
        assert (view.group_state, view.current) == ("online", "node1")


def test_a_state_that_nobody_knows_is_unknown() -> None:
    """A new word of a new version is neither online nor offline; a known word inside another does not count."""
    assert state_of("Half Online   comment") == "unknown"
    assert state_of("Onlineish") == "unknown"


def test_clpgrp_prints_a_name_or_nothing() -> None:
    """Empty when the group is inactive; messages are no names."""
    assert parse_clpgrp("NODE2\r\n", NODES) == ("node2",)
    assert parse_clpgrp("\n", NODES) == ()
    assert parse_clpgrp("Error: the cluster is stopped.\n", NODES) == ()


def test_two_active_servers_are_a_double_activation() -> None:
    """Never hidden by taking the first."""
    view = with_active(View("online", "node2"), parse_clpgrp("node1\nnode2\n", NODES))
    assert (view.current, view.double_activation) == ("node2", True)
    assert with_active(View("online", None), ("node1",)) == View("online", "node1")
    assert with_active(View("online", "node1"), ()) == View("online", "node1")
    assert with_active(View("online", "node1", double_activation=True), ("node1",)).double_activation


def test_the_options_are_put_behind_the_configured_commands() -> None:
    """Once, also when the site has put `--long` there itself."""
    assert status_argv(["clpstat"]) == ["clpstat", "--long"]
    assert status_argv(["clpstat", "--long"]) == ["clpstat", "--long"]
    assert group_argv(["clpgrp"], "g1") == ["clpgrp", "-n", "g1"]


def test_names_that_only_clusterpro_has_are_told_as_ours() -> None:
    """Group and servers may be called there as dcsup allows no name: capitals, underscores."""
    cluster = ClusterSettings(
        group="failover-1",
        nodes=NODES,
        services=[ServiceSettings(name="server", kind="server")],
        clusterpro=ClusterproSettings(group="Failover_1", servers={NODES[0]: "DB_1"}),
    )
    there = [cluster.server_there(node) for node in NODES]
    text = long(group="Failover_1", current="DB_1").replace(NODES[0], "DB_1")
    view = in_our_names(parse_clpstat(text, cluster.group_there, there).view, cluster)
    assert (view.group_state, view.current, sorted(view.servers)) == ("online", NODES[0], sorted(NODES))


@pytest.mark.parametrize("wide", [True, False])
def test_the_sandboxs_print_outs_are_read(wide: bool) -> None:
    """The stand-in, written by its own reading of the product, and this reader agree."""
    view = {"state": "Online Pending", "owner": "node2", "resources": {"fip1": "Online"}, "monitors": {"appliw": "Normal"}}
    servers = {"node1": "Offline", "node2": "Online"}
    status = {"servers": servers, "nodes": servers, "node": "node2", "view": view}
    text = render_status(status, {"cluster": "demo", "group": "failover1"}, wide=wide)
    seen = parse_clpstat(text, "failover1", NODES).view
    assert (seen.group_state, seen.current, seen.servers) == ("online-pending", "node2", {"node1": "offline", "node2": "online"})
    assert (seen.resources, seen.monitors["appliw"], seen.suspended) == ({"fip1": "online"}, "normal", False)
