"""What hostile or broken producers may write: strategies shared by the fuzz tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from statemachines.facts import AnyFact

NODES, SERVICES = ("node1", "node2"), ("agent", "server")
TICKETS = ("b-failover1-1-start", "b-failover1-2-stop", "b-failover1-3-start")

odd_texts = st.sampled_from([
    "", " ", "\x00", "a\nb", "\u2028", "\ud800", "日本語 の 名前", "../../etc/passwd",
    "$(touch canary)", "`x`", "%PATH%", "'; --", "x" * 70_000,
    "-1", "1e400", "NaN", "null", "\x1b[2J", "\ufeff", "con", "a|b&c",
])  # fmt: skip
plausible = st.sampled_from([
    *NODES, *SERVICES, *TICKETS, "START", "FAILOVER", "start", "stop", "recover", "faststop", "healthy", "unhealthy", "unknown", "ok",
    "fail", "lost", "worker", "script", "online", "dead", "auto", "started", "none", 0, 1, 2, 40, 75, True, False, None, 0.5,
])  # fmt: skip
odd_numbers = st.sampled_from([-1, 0, 2**31, 2**63, 2**64, 10**30, -(10**30), 1e308, float("inf"), float("-inf"), float("nan")])
leaves = st.one_of(st.text(max_size=20), odd_texts, plausible, odd_numbers, st.integers(), st.floats(), st.booleans(), st.none())
json_values = st.recursive(
    leaves, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)), max_leaves=8
)
FIELDS = {model.model_fields["type"].default: [name for name in model.model_fields if name != "type"] for model in AnyFact.__args__}


@st.composite
def fact_data(draw: st.DrawFn, kind: str, valid: dict[str, Any]) -> dict[str, Any]:
    """Data for a fact of this type: what is valid, with some of its fields replaced, left out, or strangers added."""
    data = dict(valid)
    for name in draw(st.lists(st.sampled_from(FIELDS.get(kind) or ["x"]), max_size=2)):
        if draw(st.integers(0, 3)):
            data[name] = draw(st.one_of(plausible, json_values))
        else:
            data.pop(name, None)
    if draw(st.integers(0, 9)) == 0:
        data[draw(st.text(max_size=8))] = draw(json_values)
    return data
