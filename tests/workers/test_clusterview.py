"""Reading CLUSTERPRO's print-outs (CLUSTERPRO.md, 2.4)."""

from __future__ import annotations

import pytest

from deploy.sandbox.standins.clp_commands import render_status
from workers.clusterview import View, group_argv, parse_clpgrp, parse_clpstat, state_of, status_argv, with_active

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
    assert parse_clpstat(PLAIN, "failover1", NODES) == View("online", "node1", {"node1": "online", "node2": "offline"})


def test_the_long_form_is_read() -> None:
    """The wide form differs in the columns only."""
    assert parse_clpstat(long(), "failover1", NODES) == View("online", "node1", {"node1": "online", "node2": "caution"})


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
        assert parse_clpstat(long(state=words, comment=comment), "failover1", NODES).group_state == state


def test_a_group_that_is_nowhere_has_no_current() -> None:
    """`None` is CLUSTERPRO's word for it."""
    assert parse_clpstat(long(state="Offline", current="None"), "failover1", NODES).current is None


def test_long_names() -> None:
    """Whole with --long; cut at 16 characters without, and then matched with the one configured name that begins so."""
    name = "container-recovery-group"
    assert parse_clpstat(long(group=name), name, NODES).group_state == "online"
    cut = PLAIN.replace("failover1 .......", "container-recove ")
    assert parse_clpstat(cut, name, NODES).group_state == "online"
    servers = parse_clpstat(PLAIN.replace("node2 ...........", "datacoordinator- "), "failover1", ["node1", "datacoordinator-b"]).servers
    assert servers == {"node1": "online", "datacoordinator-b": "offline"}
    both = ["datacoordinator-a", "datacoordinator-b"]
    assert "datacoordinator-" in parse_clpstat(PLAIN.replace("node2 ...........", "datacoordinator- "), "failover1", both).servers


def test_names_in_capitals_are_the_configured_ones() -> None:
    """Windows host names often are."""
    view = parse_clpstat(PLAIN.replace("node1", "NODE1").replace("failover1", "Failover1"), "failover1", NODES)
    assert (view.group_state, view.current, view.servers["node1"]) == ("online", "node1", "online")


GARBAGE = ["", "Command failed.\n", "\x00\x01\x02", "<group>\n failover1 Online\n", PLAIN.replace("failover1", "another")]


@pytest.mark.parametrize("text", GARBAGE)
def test_garbage_is_unknown(text: str) -> None:
    """Nothing is guessed: no state, no place."""
    view = parse_clpstat(text, "failover1", NODES)
    assert (view.group_state, view.current) == ("unknown", None)


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


def test_the_options_are_put_behind_the_configured_commands() -> None:
    """Once, also when the site has put `--long` there itself."""
    assert status_argv(["clpstat"]) == ["clpstat", "--long"]
    assert status_argv(["clpstat", "--long"]) == ["clpstat", "--long"]
    assert group_argv(["clpgrp"], "g1") == ["clpgrp", "-n", "g1"]


@pytest.mark.parametrize("wide", [True, False])
def test_the_sandboxs_print_outs_are_read(wide: bool) -> None:
    """The stand-in, written by its own reading of the product, and this reader agree."""
    view = {"state": "Online Pending", "owner": "node2", "resources": {"fip1": "Online"}, "monitors": {"appliw": "Normal"}}
    status = {"nodes": {"node1": "Offline", "node2": "Online"}, "node": "node2", "view": view}
    text = render_status(status, {"cluster": "demo", "group": "failover1"}, wide=wide)
    assert parse_clpstat(text, "failover1", NODES) == View("online-pending", "node2", {"node1": "offline", "node2": "online"})
