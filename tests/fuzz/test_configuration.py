"""dcsup.toml as nobody would write it: a configuration, or every mistake with its place and remedy."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.settings import ConfigurationError, load
from statemachines.configuration import Configuration
from tests.fuzz.values import odd_texts
from tests.orchestrator.test_surface_settings import GOOD

LINES = GOOD.splitlines()
toml_values = st.one_of(
    odd_texts.filter(lambda text: not _surrogates(text)).map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.sampled_from(["1", "-1", "1e400", "inf", "nan", "true", "[]", "{}", "[[1]]", "1979-05-27",
        '"10s"', '"-1s"', "0x10", '"1h"', "'''x'''", "", "=", "["]),
    st.integers().map(str),
    st.text(max_size=10).filter(lambda text: not _surrogates(text)),
)  # fmt: skip
keys = st.one_of(
    st.sampled_from([line.partition(" =")[0] for line in LINES if " = " in line]),
    st.sampled_from(["mode", "token_file", "listen", "keys", "sentinels", "password_file", "a.b.c", '"日本語"', "node_ttl", "confirm"]),
)


def _surrogates(text: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in text)


@st.composite
def files_of_toml(draw: st.DrawFn) -> bytes:
    """The good file with lines changed, removed, doubled, moved to other tables; or bytes changed."""
    lines = list(LINES)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        what = draw(st.integers(0, 4))
        if what == 0:
            lines[at] = f"{draw(keys)} = {draw(toml_values)}"
        elif what == 1:
            lines[at : at + 1] = []
        elif what == 2:
            lines.insert(at, lines[draw(st.integers(0, len(lines) - 1))])
        elif what == 3:
            lines.insert(at, draw(st.sampled_from(["[node]", "[[clusters.pair.services]]", "[keys.pair]", "[redis]", "[x.y]", "[["])))
        else:
            lines.insert(at, f"{draw(keys)} = {draw(toml_values)}")
        lines = lines or [""]
    raw = "\n".join(lines).encode("utf-8", "replace")
    at = draw(st.integers(0, len(raw)))
    return raw[:at] + draw(st.sampled_from([b"", b"", b"", b"\xff", b"\x00", b"\x82\xa0", b'"', b"\r"])) + raw[at:]


@settings(max_examples=800, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(files_of_toml())
def test_a_file_is_good_or_every_mistake_has_its_place(raw: bytes) -> None:
    """Never another exception; each mistake names the file, a line that it has, what is there and what may be there."""
    with tempfile.TemporaryDirectory(prefix="dcsup-fuzz-") as base:
        file = Path(base) / "dcsup.toml"
        file.write_bytes(raw)
        try:
            loaded: Any = load(file)
        except ConfigurationError as error:
            count = raw.count(b"\n") + 1
            assert error.mistakes
            for mistake in error.mistakes:
                assert mistake.file == str(file)
                assert 0 <= mistake.line <= count
                assert str(mistake.found) and str(mistake.expected)
        else:
            assert isinstance(loaded, Configuration)
