"""What CLUSTERPRO hands to scripts and hooks, made hostile: a script still ends as the guide says, and nothing in a variable is obeyed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.protocol.bench import Node
from workers import hooks
from workers.rawfacts import Damaged, read_fact

CANARY = "canary"
hostile = st.one_of(
    st.sampled_from([
        "", " ", "START", "FAILOVER", "start", "RECOVER", "SUCCESS", "FAILURE", "HOME", "OTHER", f"$(touch {CANARY})", f"`touch {CANARY}`",
        f"; touch {CANARY}", f"\n touch {CANARY}\n", f"'; touch {CANARY}; '", f'"; touch {CANARY}; "', "a\nb=c\n",
        "../../x", "*", "日本語 の", "-n", "%s%n",
        "\\", "x" * 5000, "GROUPFAILOVER", "=", "type=NodeJoined",
    ]),
    st.text(st.characters(blacklist_characters="\x00", blacklist_categories=["Cs"]), max_size=12),
)  # fmt: skip
VARIABLES = ("CLP_EVENT", "CLP_DISK", "CLP_SERVER", "CLP_FACTOR", "CLP_SERVER_PREV", "CLP_GROUPNAME", "CLP_RESOURCENAME")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["start", "stop"]), st.dictionaries(st.sampled_from(VARIABLES), hostile, min_size=1, max_size=4), st.booleans())
def test_a_script_ends_as_the_guide_says_whatever_the_variables_hold(script: str, variables: dict[str, str], bypassed: bool) -> None:
    """A start that did what was asked returns 0 and the services are up; anything else is 1 or 40, a stop's end is always 0 (G16-G18)."""
    with tempfile.TemporaryDirectory(prefix="dcsup-fuzz-") as base:
        node = Node(Path(base))
        node.configure(DCSUP_ACK_TIMEOUT=0.1, DCSUP_HOOK_SILENCE=2)
        node.configure(DCSUP="/nonexistent/dcsup")
        if bypassed:
            node.bypass()
        known = {"CLP_EVENT": "FAILOVER", **variables}
        code = node.call(f"{script}.sh", "", **known)
        is_asked = known["CLP_EVENT"] in ("START", "FAILOVER") and known.get("CLP_DISK") != "FAILURE"
        if script == "stop":
            assert code == 0
        else:
            assert code == (0 if is_asked or known["CLP_EVENT"] == "RECOVER" else 1)
        assert (len(node.verbs()) == 2) == is_asked
        assert not list(Path(base).rglob(CANARY)) and not Path(CANARY).exists()
        for path in (node.folder / "outbox").glob("[0-9]*.line"):
            try:
                fact = read_fact(path)
            except Damaged as damaged:
                pytest.fail(f"{path.name}: {damaged}")
            assert fact.type in ("ScriptDeclined", "FallbackTaken", "CommandStarted", "CommandEnded", "ScriptEnded")


words = st.one_of(
    st.sampled_from(["--folder", "--ticket", "--ack-timeout", "--limit", "--parent", "--parent-file", "--service", "--boot", "--",
                     "--interval",
                     "--module", "--id", "--text", "0", "-1", "1e999", "nan", "b-g-1-start", "/nonexistent", "", "\x00", "日本語"]),
    st.text(max_size=8),
)  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["start", "stop", "watch", "alert", "", "move"]), st.lists(words, max_size=8))
def test_a_hook_has_three_endings(capsys: pytest.CaptureFixture[str], name: str, argv: list[str]) -> None:
    """Whatever its command line: 0, 40 or 75 (an alert: 0), one line of reason, no traceback; without a ticket never 0 or 40."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="dcsup-fuzz-") as base:
        os.chdir(base)
        try:
            code = hooks.main([name, *_bounded(name, argv)])
        finally:
            os.chdir(before)
    assert code == (0 if name == "alert" else 75)
    assert "Traceback" not in capsys.readouterr().err


def _bounded(name: str, argv: list[str]) -> list[str]:
    """A watch hook with a whole command line would watch for ever: it gets a parent that is gone."""
    return ["--parent", "99999999", *(word for word in argv if not word.startswith("--parent"))] if name == "watch" else argv
