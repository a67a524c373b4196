"""A coverage-guided fuzzer before the readers of text that others wrote: `python -m tests.fuzz.guided TARGET [--runs N] [--corpus FOLDER]`.

Hypothesis tries what we thought of; this one (atheris, libFuzzer's engine) keeps whatever reaches a new branch of the reader and goes on
from there. It ends with 0 when so many runs found nothing, and otherwise leaves the input that was too much (`crash-*`) and says so.
A target takes bytes and returns; any exception that the reader does not promise is a finding.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import io
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

Target = Callable[[bytes], None]


def clpstat(data: bytes) -> None:
    """CLUSTERPRO's print-outs: a reading, whose states are those that exist."""
    from workers import clusterview

    text = data.decode("utf-8", "replace")
    reading = clusterview.parse_clpstat(text, "failover1", ["server1", "server2"])
    view = clusterview.with_active(reading.view, clusterview.parse_clpgrp(text, ["server1", "server2"]))
    json.dumps(dataclasses.asdict(view))


def clpconf(data: bytes) -> None:
    """clp.conf: a model with findings, or a refusal in words."""
    from orchestrator.clpconf.parsing import parse
    from orchestrator.clpconf.reading import ClpConfError

    try:
        conf = parse(data)
    except ClpConfError as error:
        assert str(error)
    else:
        assert all(str(finding.said) for finding in conf.findings)


def fact(data: bytes) -> None:
    """A file in the outbox: a fact, or damaged in words."""
    from workers.rawfacts import Damaged, read_fact

    with tempfile.NamedTemporaryFile(suffix=".fact") as file:
        file.write(data)
        file.flush()
        try:
            read_fact(Path(file.name))
        except Damaged as damaged:
            assert str(damaged)


def inbox(data: bytes) -> None:
    """An inbox entry: applied, skipped, or put aside with a reason; the log folds to the state (I5, I6)."""
    from orchestrator.intake import take_in
    from orchestrator.ports import Core, InboxEntry
    from statemachines.folding import fold
    from statemachines.states import new_state

    first = json.dumps({"type": "ConfigurationChanged", "source": "leader", "stream": "l", "seq": 1, "data": {"settings": _cluster()}})
    texts = [("_leader", first.encode()), *(("node1", line) for line in data.split(b"\n")[:20])]
    entries = [InboxEntry("demo", inbox, f"{1_800_000_000_000 + place}-0", raw) for place, (inbox, raw) in enumerate(texts)]
    batch = take_in(Core(), new_state("demo"), {}, entries, 1_800_000_001_000)
    assert not [one.reason for one in batch.quarantined if one.reason.startswith("step raised")]
    folded = new_state("demo")
    for sealed in batch.entries:
        fold(folded, sealed)
    assert folded == batch.state


def toml(data: bytes) -> None:
    """dcsup.toml: a configuration, or every mistake with its place."""
    from orchestrator.settings import ConfigurationError, load

    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        file.write(data)
        file.flush()
        try:
            load(file.name)
        except ConfigurationError as error:
            assert error.mistakes


def export(data: bytes) -> None:
    """An exported log: its entries, or where the file stops being one."""
    from orchestrator.chain import Damaged
    from orchestrator.reading import read

    try:
        list(read(io.BytesIO(data)))
    except Damaged as damaged:
        assert str(damaged)


def _cluster() -> dict[str, object]:
    services = [{"name": "agent", "kind": "agent"}, {"name": "server", "kind": "server"}]
    return {"mode": "supervise", "group": "failover1", "nodes": ["node1", "node2"], "services": services}


TARGETS: dict[str, tuple[Target, tuple[str, ...]]] = {
    "clpstat": (clpstat, ("workers.clusterview", "workers.views")),
    "clpconf": (clpconf, ("orchestrator.clpconf",)),
    "fact": (fact, ("workers.rawfacts",)),
    "inbox": (inbox, ("orchestrator.intake", "statemachines")),
    "export": (export, ("orchestrator.reading", "orchestrator.chain", "statemachines.entries")),
    "toml": (toml, ("orchestrator.settings", "orchestrator.tomllines")),
}
"""Name -> target, and the modules whose branches count."""


def seeds(name: str) -> list[bytes]:
    """Good input to begin with."""
    from statemachines.entries import to_line
    from tests.clpconf.sample import sample
    from tests.fuzz.test_facts import VALID
    from tests.orchestrator.test_surface_settings import GOOD
    from tests.statemachines.story import Story
    from tests.workers.test_clusterview import PLAIN

    bodies = [{"type": kind, "source": "worker", "stream": "s", "seq": 1, "data": data} for kind, data in VALID.items()]
    envelopes = [json.dumps(body).encode() for body in bodies]
    lines = b"type=CommandEnded\nsource=script\nn=1\nservice=agent\nverb=start\nticket=b-g-1-start\nby=script\nresult=ok\nran=1\ncode=0\n"
    return {
        "clpstat": [PLAIN.encode()], "clpconf": [sample(), sample(encoding="cp932")], "fact": [*envelopes, lines], "inbox": envelopes,
        "export": [b"".join(to_line(sealed) + b"\n" for sealed in Story().log)],
        "toml": [GOOD.encode()],
    }[name]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz one reader, guided by the coverage of its branches.")
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--runs", type=int, default=100_000, help="inputs to try; default 100,000")
    parser.add_argument("--seed", type=int, default=1, help="of the dice; the same one tries the same inputs")
    parser.add_argument("--corpus", type=Path, help="folder that keeps what reached new branches; default: one that is thrown away")
    chosen = parser.parse_args()
    atheris = importlib.import_module("atheris")  # not there on every system
    target, modules = TARGETS[chosen.target]
    with atheris.instrument_imports(include=list(modules)):
        target(seeds(chosen.target)[0])
    with tempfile.TemporaryDirectory(prefix="dcsup-fuzz-") as thrown_away:
        corpus = chosen.corpus or Path(thrown_away)
        corpus.mkdir(parents=True, exist_ok=True)
        for place, seed in enumerate(seeds(chosen.target)):
            (corpus / f"seed-{place}").write_bytes(seed)
        limits = [f"-runs={chosen.runs}", f"-seed={chosen.seed}", "-max_len=8192", "-timeout=60", "-rss_limit_mb=2048"]
        atheris.Setup([sys.argv[0], *limits, str(corpus)], target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
