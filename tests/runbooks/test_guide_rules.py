"""The guide's rules for setting up (G25-G40): one test a rule, from the steps and what they say."""

from __future__ import annotations

import pytest

from orchestrator.runbooks import places
from orchestrator.runbooks.plans import DoesNotFit
from orchestrator.runbooks.steps import Step
from orchestrator.runbooks.wording import word
from tests.runbooks.support import TestEyes, ids, look, shape_of, step_of, steps_of, words

VALUES = {
    "install_path": r"C:\DataCoordinatorRA", "floating_ip": "10.0.0.9", "server_port": "22100", "agent_port": "22110",
    "agent_name": "agent-a", "server_address": "10.0.0.9:22100", "disk": "E:", "metadata_path": r"E:\meta", "shared_folder": r"E:\share",
    "account": "necsys",
}  # fmt: skip


def said(step: Step, services: str) -> str:
    """The whole of a step in English."""
    worded = word(step, shape_of(services), VALUES, "en")
    return f"{worded.title}\n{worded.text}\n{worded.why}"


def installs(services: str, component: str, standbys: int = 2) -> list[Step]:
    steps = steps_of(f"install-{component}", services, standbys)
    return [step for step in steps if step.id.startswith(f"install-{component}.")]


def test_g1_only_one_way_standby() -> None:
    """A cluster without a standby has no runbook, and the first step asks for one-way standby."""
    for name in ("install-server", "drill"):
        with pytest.raises(DoesNotFit, match=r"no standby.*G1"):
            steps_of(name, "server", 0)
    assert "G1" in steps_of("install-server", "server")[0].rules


def test_g2_a_local_dbms_is_clustered_with_its_agent() -> None:
    """Local, remote and unsaid DBMSs each have a step of their own before anything is installed."""
    for where in ("local", "remote", "unsaid"):
        steps = steps_of("install-agent", f"agent-{where}")
        step = step_of(steps, "databases")
        assert step.kind == f"databases-{where}"
        assert "G2" in step.rules
        assert ids(steps).index("databases") < ids(steps).index("group-up.node1")


def test_g23_the_agent_is_started_before_the_server() -> None:
    """Where both are on one machine, what is put into the group starts the agent first."""
    step = step_of(steps_of("install-server", "both"), "resources")
    assert "G23" in step.rules
    assert "starts the agent before the server" in said(step, "both")


def test_g24_g42_the_agent_is_added_to_the_scripts_of_the_dbms() -> None:
    """With a local DBMS (or where the site did not say) the lines go into the scripts that exist; else whole scripts are made."""
    assert "--fragment" in said(step_of(steps_of("install-agent", "agent-local"), "scripts"), "agent-local")
    assert "--fragment" in said(step_of(steps_of("install-agent", "agent-unsaid"), "scripts"), "agent-unsaid")
    assert "--fragment" not in said(step_of(steps_of("install-agent", "agent-remote"), "scripts"), "agent-remote")
    assert "--fragment" not in said(step_of(steps_of("install-server", "server"), "scripts"), "server")


@pytest.mark.parametrize("name", ["install-server", "install-agent"])
def test_g25_the_cluster_comes_first(name: str) -> None:
    """Group, floating IP and disk are asked for before everything else, and the group is looked for."""
    first = steps_of(name, "both")[0]
    assert (first.id, first.verification and first.verification.kind) == ("cluster-first", "group-known")
    assert "10.0.0.9" in said(first, "both")


def test_g26_one_standby_in_the_guides_order() -> None:
    """Install where the group is up, move, reboot the first, install the standby, move back, reboot it."""
    order = [one for one in ids(steps_of("install-server", "server")) if "." in one and not one.startswith(("port", "manual", "check"))]
    assert order == [
        *("group-up.node1", "install-server.node1", "move.node2", "reboot.node1"),
        *("install-server.node2", "back.node2", "reboot.node2", "start.node1"),
    ]


@pytest.mark.parametrize(
    ("name", "services"), [("install-server", "server"), ("install-agent", "agent-remote"), ("install-server", "both")]
)
def test_g26_the_standbys_part_is_repeated_for_each(name: str, services: str) -> None:
    """With three standbys: move, install, back, reboot for each; the first node is rebooted once, after the first move."""
    order = [one for one in ids(steps_of(name, services, 3)) if one.startswith(("move", "back", "reboot"))]
    assert order == [
        *("move.node2", "reboot.node1", "back.node2", "reboot.node2"),
        *("move.node3", "back.node3", "reboot.node3"),
        *("move.node4", "back.node4", "reboot.node4"),
    ]


def test_g26_the_group_is_never_on_a_node_that_is_rebooted_and_always_where_is_installed() -> None:
    """Played through: where the steps put the group, for one to three standbys."""
    for standbys in (1, 2, 3):
        group_on = None
        for step in steps_of("install-server", "both", standbys):
            if step.id.startswith(("group-up", "move", "back")):
                group_on = step.node
            if step.id.startswith("install"):
                assert group_on == step.node, step.id
            if step.id.startswith("reboot"):
                assert group_on != step.node, step.id


def test_g26_as_administrator() -> None:
    """Every installation says so."""
    for component, services in (("server", "server"), ("agent", "agent-remote")):
        assert all("As Administrator on" in said(step, services) for step in installs(services, component))


def test_g27_the_install_path_is_named_at_each_installation_and_judged() -> None:
    """The same path everywhere; a drive's root, a share or the group's own disk is refused, and so is a program elsewhere."""
    steps = [*installs("both", "server"), *installs("both", "agent")]
    assert all(r"Install path: C:\DataCoordinatorRA" in said(step, "both") for step in steps)
    for path in ("C:\\", "C:", "\\\\nas\\share\\x", "E:\\x", "DataCoordinatorRA", r"C:\x\..\.."):
        assert list(places.mistakes({"install_path": path, "disk": "E:"}, ("install_path", "disk"))), path
    assert not list(places.mistakes({"install_path": r"C:\Program Files\データ連携", "disk": "E:"}, ("install_path", "disk")))
    step = installs("server", "server")[0]
    program = r"D:\other\server\bin\dcserver.bat"
    eyes = TestEyes("node1", programs={"server": program}, files={program: True})
    assert "G27" in words(look(step, shape_of("server"), eyes, VALUES))


def test_g28_hosts_ports_and_name_are_the_floating_ones_on_every_node() -> None:
    """Server: floating IP and port. Agent: floating IP of its machine, port, name, and the server's address."""
    for step in installs("both", "server"):
        assert "Server host and port: 10.0.0.9, 22100." in said(step, "both")
    for step in installs("both", "agent"):
        assert "10.0.0.9, 22110, agent-a" in said(step, "both")
        assert "The agent's server: 10.0.0.9:22100." in said(step, "both")


def test_g29_the_metadata_database_is_new_once() -> None:
    """New on the first node, 'already installed' in the same place on every standby; on the switchable partition, not in its root."""
    first, *standbys = installs("server", "server", 3)
    assert "install it new, in E:\\meta" in said(first, "server")
    assert all("'already installed'" in said(step, "server") and "E:\\meta" in said(step, "server") for step in standbys)
    assert not any("install it new" in said(step, "server") for step in standbys)
    for path in ("E:\\", "C:\\meta"):
        wrong = list(places.mistakes({**VALUES, "metadata_path": path}, ("metadata_path", "disk")))
        assert any("G29" in str(one) for one in wrong)


def test_g30_the_account_has_the_same_name_everywhere() -> None:
    """Named at each installation of the server."""
    assert all("Account of the metadata database: necsys." in said(step, "server") for step in installs("server", "server"))


def test_g31_the_port_is_looked_at_before_each_installation() -> None:
    """On each node, before the installer runs there."""
    steps = steps_of("install-server", "server", 2)
    for node in ("node1", "node2", "node3"):
        assert ids(steps).index(f"port.{node}") == ids(steps).index(f"install-server.{node}") - 1
    step = step_of(steps, "port.node1")
    assert look(step, shape_of("server"), TestEyes("node1", ports={22103})).answer == "no"
    assert look(step, shape_of("server"), TestEyes("node1", ports={80})).answer == "yes"
    other = shape_of("server", metadata={"port": 80})
    assert look(step, other, TestEyes("node1", ports={80})).answer == "no"


def test_g32_memory() -> None:
    """512 MB, for server and agent."""
    assert all("Memory: 512 MB" in said(step, "both") for step in (*installs("both", "server"), *installs("both", "agent")))


def test_g33_services_are_manual_on_every_node() -> None:
    """Chosen in the installer; the metadata DB server's by hand afterwards, on every node, and looked at."""
    steps = steps_of("install-server", "server", 2)
    assert all("Service start: manual." in said(step, "server") for step in steps if step.id.startswith("install-"))
    for node in ("node1", "node2", "node3"):
        assert ids(steps).index(f"manual.{node}") > ids(steps).index("reboot.node3")
    step = step_of(steps, "manual.node1")
    assert "'DataCoordinatorRA Meta DB server' from automatic to manual" in said(step, "server")
    found = {"DataCoordinatorRA Meta DB server": "auto", "DataCoordinatorRA Server": "manual"}
    finding = look(step, shape_of("server", 2), TestEyes("node1", services=found))
    assert finding.answer == "no"
    assert "startup type auto, not manual (G33)" in words(finding)
    good = dict.fromkeys(found, "manual")
    assert look(step, shape_of("server", 2), TestEyes("node1", services=good)).answer == "yes"


def test_g34_the_shared_folder_is_new_once() -> None:
    """New on the first node, the existing one on every standby; on the switchable partition, not in its root."""
    first, *standbys = installs("agent-remote", "agent", 3)
    assert "install it new, in E:\\share" in said(first, "agent-remote")
    assert all("choose the existing one, E:\\share" in said(step, "agent-remote") for step in standbys)
    for path in ("E:", "C:\\share"):
        assert any("G34" in str(one) for one in places.mistakes({**VALUES, "shared_folder": path}, ("shared_folder", "disk")))


def test_g35_one_group_two_folders() -> None:
    """Said wherever both are on one machine, and only there; the same folder twice is refused in whatever case it is written."""
    assert all("make no second group" in said(step, "both") for step in (*installs("both", "server"), *installs("both", "agent")))
    assert not any("second group" in said(step, "server") for step in installs("server", "server"))
    same = {"metadata_path": r"E:\Data", "shared_folder": r"e:\data"}
    assert any("G35" in str(one) for one in places.mistakes(same, ("metadata_path", "shared_folder")))


def test_g36_clients_go_to_the_floating_ip() -> None:
    """Every agent's server address and every Manager's connection, after the server was installed everywhere."""
    steps = steps_of("install-server", "server", 2)
    assert ids(steps).index("clients") > ids(steps).index("install-server.node3")
    assert "every agent" in said(step_of(steps, "clients"), "server")
    assert "10.0.0.9, port 22100" in said(step_of(steps, "clients"), "server")


def test_g37_the_agent_is_registered_once_and_looked_at_after_each_move() -> None:
    """One registration for any number of nodes; Manager is looked at before and after each move."""
    order = ids(steps_of("register-agent", "agent-remote", 2))
    assert order == [*("serving.node1", "register", "look.node1", "move.node2", "look.node2", "move.node3", "look.node3", "back.node3")]
    assert "Do this once" in said(step_of(steps_of("register-agent", "agent-remote"), "register"), "agent-remote")


def test_g38_the_server_is_uninstalled_on_the_standbys_first_and_the_data_last() -> None:
    """Fail over, uninstall without the shared data; at the end fail back, uninstall and delete the data once."""
    steps = steps_of("uninstall-server", "server", 2)
    assert ids(steps) == [
        *("take-out", "move.node2", "uninstall-server.node2", "move.node3", "uninstall-server.node3"),
        *("back.node3", "uninstall-server.node1"),
    ]
    *standbys, last = [step for step in steps if step.id.startswith("uninstall")]
    assert all("DO NOT delete" in said(step, "server") and step.danger for step in standbys)
    assert "delete the shared data too" in said(last, "server")
    assert last.danger


def test_g38_shared_data_that_vanished_on_a_standby_is_told() -> None:
    """The one thing that must not happen there."""
    step = step_of(steps_of("uninstall-server", "server"), "uninstall-server.node2")
    program = r"C:\DataCoordinatorRA\server\bin\dcserver.bat"
    eyes = TestEyes("node2", group_on=("node2",), programs={"server": program}, files={program: False, r"E:\meta": True})
    assert look(step, shape_of("server"), eyes, VALUES).answer == "yes"
    eyes.files = {program: False, r"E:\meta": False}
    assert look(step, shape_of("server"), eyes, VALUES).answer == "no"


def test_g38_on_a_machine_with_both_the_agent_goes_first() -> None:
    """On every node."""
    order = ids(steps_of("uninstall-server", "both", 2))
    for node in ("node1", "node2", "node3"):
        assert order.index(f"uninstall-agent.{node}") < order.index(f"uninstall-server.{node}")


def test_g39_the_agent_is_uninstalled_standbys_first_and_before_the_server() -> None:
    """The active node is last; what becomes of the shared folder is left to the person, for the guide is silent."""
    steps = steps_of("uninstall-agent", "agent-remote", 2)
    order = [one for one in ids(steps) if one.startswith("uninstall")]
    assert order == ["uninstall-agent.node2", "uninstall-agent.node3", "uninstall-agent.node1"]
    assert "The guide does not say" in said(steps[-1], "agent-remote")
    assert "before the server" in said(steps[-1], "agent-remote")


def test_g40_what_the_group_needs_is_put_into_it_before_the_first_start() -> None:
    """Script, resident application and monitor with failover as its recovery action."""
    for name, services in (("install-server", "server"), ("install-agent", "agent-local"), ("install-server", "both")):
        steps = steps_of(name, services)
        text = said(step_of(steps, "resources"), services)
        assert ids(steps).index("scripts") < ids(steps).index("resources") < ids(steps).index("start.node1")
        assert all(words in text for words in ("script resource", "resident", "application monitor", "recovery action"))
