"""G24: the agent beside its DBMS, in one start script and one stop script of the site."""

from __future__ import annotations

from tests.protocol.conftest import Node


def test_g24_agent_starts_after_its_dbms_and_stops_before_it(plain: Node) -> None:
    """G24: called where the site starts and stops the DBMS instance, the scripts keep the agent inside the DBMS's life."""
    for script, before, after in (("start", "dbms up", ""), ("stop", "", "dbms down")):
        lines = [f"echo {before} >>'{plain.calls}'" if before else "", f"'{plain.scripts}/{script}.sh' || exit 9",
                 f"echo {after} >>'{plain.calls}'" if after else ""]  # fmt: skip
        plain.scripts.joinpath(f"own-{script}.sh").write_text("\n".join(lines) + "\n")
    assert plain.call("own-start.sh") == 0
    assert plain.call("own-stop.sh") == 0
    calls = plain.recorded()
    assert calls.index("dbms up") < calls.index("run agent start") < calls.index("run agent stop") < calls.index("dbms down")
