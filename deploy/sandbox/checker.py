"""The independent checker: whether a story in the sandbox broke a rule, told from the sandbox's own records and the exported log alone.

It imports nothing of dcsup, reads none of its files and asks none of its processes. Each rule is a function that takes the story (story.py)
and yields what is wrong; `RULES` names them. What a rule must find is tested with doctored records (tests/sandbox/test_checker.py).

    python -m deploy.sandbox.checker FOLDER      judge the kept folder of a soak once more

The longest part of it is the first law: nothing that clients or CLUSTERPRO suffered may have dcsup as its cause. So every act of the
cluster manager must be explained, back to a fault that was injected into the *world* (a node, a service, a script), or an operator; a
fault injected into dcsup, Redis or the network between them (`harmless`) explains none.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

from deploy.sandbox.evidence import Verb
from deploy.sandbox.story import FOREVER, Fault, Outage, Record, Run, Story

STARTS = ("start", "recover")
EVENTS = ("START", "FAILOVER")
GUIDE = {
    ("server", "start.sh", "START"): "recover",  # G8
    ("server", "start.sh", "FAILOVER"): "recover",  # G9
    ("server", "stop.sh", "START"): "faststop",  # G10
    ("server", "stop.sh", "FAILOVER"): "faststop",  # G11
    ("agent", "start.sh", "START"): "start",  # G12
    ("agent", "start.sh", "FAILOVER"): "recover",  # G13
    ("agent", "stop.sh", "START"): "stop",  # G14
    ("agent", "stop.sh", "FAILOVER"): "faststop",  # G15
}
"""Spelled out once more on purpose: what is expected does not come from what is to be checked."""

CLAIM_S = 3.0
"""N7: for 2 s after its last sign of life a script's ticket can still be claimed; and a moment for the verb to begin."""
FRESH_S = 6.0
"""I2: how old the proof of a healthy agent may be: FRESH_S of dcsup, and a moment for the server's command to begin."""
SEEN_LATE_S = 15.0
"""How long after a dcstatus that failed the monitor may notice that the watch script has ended."""
LOST_S = 15.0
"""How long after a fault a node may be declared lost because of it."""
DEATH_S = 15.0
"""How long after a node's death, or its pause, another takes the group over."""
BLINK_S = 3.0
"""A client's connection times out after 2 s: so long before the failed write its reason may lie."""
SCRIPT_S = 60.0
"""A script that nothing in the world hinders: the plain sequence (under 10 s here) with every allowance that NODE.md gives, twice over."""
APART_S = 6.0
"""How far the log's time of a command and its own may lie apart."""
SAME_OUTAGE_S = 4.0
"""How far the clients' and dcsup's account of one outage may lie apart and still be of the same."""
PROBED_S = 2.5
"""How much longer or shorter an outage may be on dcsup's record, on average: clients wait up to 2 s for an answer."""

Found = Iterator[str]


def check(story: Story) -> list[str]:
    """Every violation, each with its rule's name in front."""
    return [f"{name}: {text}" for name, rule in RULES.items() for text in rule(story)]


def _at(story: Story, time: float) -> str:
    began = story.records["cluster"][0]["time"] if story.records["cluster"] else time
    return f"at {time - began:.2f} s"


# --- what ran


def asked_for(story: Story) -> Found:
    """I1, G16, N7: no verb without a script of CLUSTERPRO that asks, on that very node; nothing is started on RECOVER."""
    for verb in story.verbs:
        if _script_of(story, verb) is None:
            yield f"{verb} {_at(story, verb.begin)}, and no script asked for it there"


def the_guides(story: Story) -> Found:
    """G8-G15: the verb that the guide has for this script and CLP_EVENT."""
    for verb in story.verbs:
        run = _script_of(story, verb)
        if run is not None and GUIDE.get((verb.component, run.script, run.event), verb.verb) != verb.verb:
            yield f"{verb} {_at(story, verb.begin)}, in a {run.script} with CLP_EVENT={run.event}"


def agent_first(story: Story) -> Found:
    """I2, G23: a server is started only where its agent is healthy."""
    for verb in story.verbs:
        starts = verb.component == "server" and verb.verb in STARTS
        if starts and not story.was_healthy(verb.node, "agent", verb.begin - FRESH_S, verb.begin):
            yield f"{verb} {_at(story, verb.begin)}, before its agent"


def once(story: Story) -> Found:
    """I7: in one script's run a verb runs once; again only if nobody knows how it ended: killed, or no room to write it down."""
    runs: dict[tuple[Run, str, str], list[Verb]] = defaultdict(list)
    for verb in story.verbs:
        if (run := _script_of(story, verb)) is not None:
            runs[run, verb.component, verb.verb].append(verb)
    for verbs in runs.values():
        if any(first.code is not None and not _disk_was_full(story, first) for first in verbs[:-1]):
            yield f"{verbs[-1]} ran {len(verbs)} times for one script, last {_at(story, verbs[-1].begin)}, though the end was known"


def one_at_a_time(story: Story) -> Found:
    """I7: worker and script never both run one: no verb begins while another of the same service still runs on that node."""
    last: dict[tuple[str, str], Verb] = {}
    for verb in story.verbs:
        before = last.get((verb.node, verb.component))
        if before is not None and before.end is not None and before.end > verb.begin:
            yield f"{verb} {_at(story, verb.begin)}, while {before.verb} was still running"
        last[verb.node, verb.component] = verb


def stays_stopped(story: Story) -> Found:
    """I7: after a stop returned, nothing that was begun before brings the service up: a daemon begins only under a start script."""
    for record in story.of("daemons", "started"):
        if record["verb"] in STARTS and _run_at(story, record["node"], "start.sh", record["time"]) is None:
            yield f"{record['node']}: {record['component']} came up {_at(story, record['time'])}, and no start script was running"


def one_node(story: Story) -> Found:
    """No service is up on two nodes at once."""
    for component in ("agent", "server", "metadata"):
        spans = sorted((span, node) for (node, what), found in story.healthy.items() if what == component for span in found)
        for (first, here), (second, there) in pairwise(spans):
            if here != there and second[0] < first[1]:
                yield f"{component} was up on {here} and on {there} {_at(story, second[0])}"


def _script_of(story: Story, verb: Verb) -> Run | None:
    script = "start.sh" if verb.verb in STARTS else "stop.sh"
    return _run_at(story, verb.node, script, verb.begin)


def _run_at(story: Story, node: str, script: str, time: float) -> Run | None:
    for run in story.runs:
        claimable_s = CLAIM_S if run.killed else 0.0
        if (run.node, run.script) == (node, script) and run.event in EVENTS and run.begin <= time <= run.end + claimable_s:
            return run
    return None


# --- facts


def no_fact_lost(story: Story) -> Found:
    """I5: each fact that got a number on a node's disk is in the log once, or in quarantine with its reason; each one on disk got one."""
    if story.of("outbox", "overflow"):
        yield "the witness lost count; nothing can be said about the facts"
        return
    told = _told(story)
    for record in story.of("outbox", "numbered"):
        key = (record["node"], f"{record['stream']}:{record['seq']}")
        if told[key] != 1:
            yield f"{record['node']}: fact {key[1]} ({record['name']}) is in the log {told[key]} times"
    gone = {(r["node"], r["name"]) for what in ("numbered", "damaged") for r in story.of("outbox", what)}
    for record in story.of("outbox", "written"):
        if (record["node"], record["name"]) not in gone:
            yield f"{record['node']}: {record['name']} was written {_at(story, record['time'])} and never handed in"
    for record in story.of("outbox", "damaged"):
        yield f"{record['node']}: {record['name']} was put aside as damaged, and nobody damaged it"


def no_fact_invented(story: Story) -> Found:
    """I5: what the log has of an outbox was on the node's disk, and said the same there."""
    names = {(r["node"], f"{r['stream']}:{r['seq']}"): r["name"] for r in story.of("outbox", "numbered")}
    contents = {(r["node"], r["name"]): r["content"] for r in story.of("outbox", "written")}
    streams = {(node, source.rpartition(":")[0]) for node, source in names}
    for entry in story.log:
        key = (entry["node"], entry["source_id"] or "")
        if (key[0], key[1].rpartition(":")[0]) not in streams or entry["type"] == "FactQuarantined":
            continue
        if key not in names:
            yield f"{key[0]}: {entry['type']} {key[1]} is in the log and never was on the disk"
        elif not _same(contents.get((key[0], names[key])), entry):
            yield f"{key[0]}: {key[1]} says {entry['type']} in the log, and something else on the disk"


def _same(content: str | None, entry: Record) -> bool:
    if content is None:
        return True  # read too late: the name and the number were seen
    if not content.startswith("{"):
        return f"type={entry['type']}" in content.splitlines()
    body = json.loads(content)
    data = entry["data"]
    return bool(body["type"] == entry["type"] and all(data[key] == value for key, value in body["data"].items() if key in data))


def _told(story: Story) -> Counter[tuple[str, str]]:
    return Counter((e["node"], e["source_id"]) for e in story.log if e["node"] is not None and e["source_id"] is not None)


def in_order(story: Story) -> Found:
    """I5: of each stream the log has the numbers in their order, and leaves none out; ids rise; each line's hash follows from the last."""
    last: dict[tuple[str, str], int] = {}
    before, chain = (0, 0), "0" * 64
    for entry, line in zip(story.log, story.lines, strict=True):
        first, _, second = entry["id"].partition("-")
        if (int(first), int(second)) <= before:
            yield f"{entry['id']} comes after {before[0]}-{before[1]}"
        before = (int(first), int(second))
        body = line[: -len(',"hash":"') - 66] + b"}"
        chain, expected = hashlib.sha256(chain.encode() + body).hexdigest(), entry["hash"]
        if chain != expected:
            yield f"{entry['id']}: its hash does not follow"
            return
        yield from _next_of_its_stream(entry, last)


def _next_of_its_stream(entry: Record, last: dict[tuple[str, str], int]) -> Found:
    if entry["source_id"] is None or "evidence" not in entry:
        return
    stream, _, text = entry["source_id"].rpartition(":")
    key, number = (entry["evidence"]["inbox"], stream), int(text)
    if number != last.get(key, 0) + 1:
        yield f"{key[0]}: stream {stream} goes from {last.get(key, 0)} to {number} at {entry['id']}"
    last[key] = number


def says_what_happened(story: Story) -> Found:
    """Every verb that ran is in the log, and every command that the log calls ended well did run."""
    started = _by_command(story.entries("CommandStarted"))
    ended = _by_command([e for e in story.entries("CommandEnded") if e["data"]["result"] == "ok" and e["data"]["ran"]])
    ran = defaultdict(list)
    for verb in story.verbs:
        key = (verb.node, verb.component, verb.verb)
        ran[key].append(verb.begin)
        if not _take(started[key], verb.begin) and not _untold(story, verb):
            yield f"{verb} ran {_at(story, verb.begin)} and is not in the log"
    for key, times in ended.items():
        for time, duration_s in times:
            if not any(begin - APART_S <= time and time - duration_s <= begin + APART_S for begin in ran[key]):
                yield f"{key[0]}:{key[1]} {key[2]} is in the log {_at(story, time)} and never ran"


def _by_command(entries: list[Record]) -> defaultdict[tuple[str, str, str], list[tuple[float, float]]]:
    found = defaultdict(list)
    for entry in entries:
        data = entry["data"]
        found[entry["node"], data["service"], data["verb"]].append((entry["evidence"]["at_ms"] / 1000, data.get("duration_s") or 0.0))
    return found


def _take(times: list[tuple[float, float]], begin: float) -> bool:
    near = min(times, key=lambda each: abs(each[0] - begin), default=None)
    if near is None or abs(near[0] - begin) > APART_S:
        return False
    times.remove(near)
    return True


def _untold(story: Story, verb: Verb) -> bool:
    """Its fact may never have reached the disk: that was full, or the power was cut at that moment."""
    dead = [r for what in ("node killed", "node is dead") for r in story.of("driver", what, node=verb.node)]
    cut = any(abs(r["time"] - verb.begin) < 1.0 for r in dead)
    return cut or _disk_was_full(story, verb)


def _disk_was_full(story: Story, verb: Verb) -> bool:
    end = verb.begin if verb.end is None else verb.end
    return any(f.kind == "disk-full" and f.on == verb.node and f.touches(verb.begin - 3, end + 3) for f in story.faults)


def folds_to_the_state(story: Story) -> Found:
    """I6: the fold of the export is the live state, and today's rules decide the same."""
    if story.results.get("fold") != "same":
        yield f"the fold of the export: {story.results.get('fold', 'was not compared')}"
    if story.results.get("verify") != "same":
        yield f"deciding again: {story.results.get('verify', 'was not done')}"


def nothing_wrong_told(story: Story) -> Found:
    """dcsup itself noticed no violation, quarantined nothing, lost no fact without a full disk, and missed no tail of the log."""
    for entry in story.log:
        if entry["type"] in ("InvariantViolated", "FactQuarantined", "LogTailLost", "FactsLost"):
            yield f"{entry['type']} {entry['id']}: {json.dumps(entry['data'], ensure_ascii=False)[:200]}"
        if entry["type"] == "FactsDropped" and not any(f.kind == "disk-full" and f.on == entry["node"] for f in story.faults):
            yield f"FactsDropped {entry['id']} without a full disk: {entry['data']['reason'][:200]}"


# --- failovers and schedules


def every_failover_ends(story: Story) -> Found:
    """I3: what was opened was ended, once."""
    ended = Counter(entry["data"]["failover"]["id"] for entry in story.entries("FailoverEnded"))
    for entry in story.entries("FailoverOpened"):
        name = entry["data"]["failover"]["id"]
        if ended.pop(name, 0) != 1:
            yield f"{name}, opened at {entry['time']}, has not ended once"
    yield from (f"{name} ended and never began" for name in ended)


def schedules_judged(story: Story) -> Found:
    """I4: what ran before a failover is told of, by name, and what is called resumed did run again."""
    for entry in story.entries("FailoverEnded"):
        record = entry["data"]["failover"]
        if record["outcome"] != "completed":
            continue
        symptom = record["points"]["symptom"] / 1000
        verdicts = {v["name"]: v["outcome"] for j in record["judgements"] for v in j["schedules"]}
        before = {r["schedule"] for r in story.records["runs"] if symptom - 8 <= r["time"] <= symptom}
        for name in sorted(before - verdicts.keys()):
            yield f"{record['id']}: {name} ran before, and nothing is said of it"
        yield from _ran_again(story, record, verdicts)


def _ran_again(story: Story, record: Record, verdicts: dict[str, str]) -> Found:
    verified, judged = record["points"]["verified"] / 1000, record["points"]["judged"] / 1000
    ran = {r["schedule"] for r in story.records["runs"] if r["node"] == record["node_to"] and verified - 5 <= r["time"] <= judged + 5}
    for name, outcome in verdicts.items():
        if outcome in ("resumed", "auto_started") and name not in ran:
            yield f"{record['id']}: {name} is called {outcome}, and did not run on {record['node_to']}"
        if outcome == "missed" and _kept_running(story, record["node_to"], name, verified, judged):
            yield f"{record['id']}: {name} is called missed, and ran all the time"


def _kept_running(story: Story, node: str, name: str, begin: float, end: float) -> bool:
    times = [r["time"] for r in story.records["runs"] if (r["node"], r["schedule"]) == (node, name) and begin <= r["time"] <= end]
    return end - begin > 2 and len(times) > 2 * (end - begin)


# --- the first law


def acts_are_explained(story: Story) -> Found:
    """Each time the cluster manager took the group away, the world or an operator gave it a reason."""
    for record in story.of("cluster", "group-deactivation-begin"):
        if not _reason_to_stop(story, record):
            yield f"{record['node']}: the group is taken ({record['factor']}) {_at(story, record['time'])}, for no reason of the world's"
    for record in story.of("cluster", "group-takeover"):
        # whoever had it, or was to have it next
        dead = [r for what in ("node killed", "node paused") for r in story.of("driver", what)]
        if not any(record["time"] - DEATH_S <= r["time"] <= record["time"] for r in dead):
            yield f"{record['node']} took the group over {_at(story, record['time'])}, and no node had died"
    for record in story.of("cluster", "os-shutdown"):
        if not _run_killed(story, record) and not story.of("driver", "node paused"):
            yield f"{record['node']}: the manager would have shut the system down {_at(story, record['time'])}: {record['reason']}"


def _reason_to_stop(story: Story, record: Record) -> bool:
    time, node = record["time"], record["node"]
    match record["factor"]:
        case "GROUPMOVE":
            return story.operated("move", time - 120, time)
        case "GROUPSTOP":
            return story.operated("stop", time - 120, time)
    failed = [r for r in story.of("cluster", "group-activation-end", node=node, ok=False) if time - 2 <= r["time"] <= time]
    acted = [r for r in story.of("cluster", "monitor-acted", node=node) if time - 120 <= r["time"] <= time]
    return bool(failed or acted)  # these two are judged by themselves


def _run_killed(story: Story, record: Record) -> bool:
    return any(run.killed and run.node == record["node"] and abs(run.end - record["time"]) < 2 for run in story.runs)


def alarms_are_true(story: Story) -> Found:
    """I8: a watch script ends only after a dcstatus that was not 0, and that was true; or because somebody killed it."""
    for record in story.of("cluster", "monitor-detected"):
        node, time, service = record["node"], record["time"], record["monitor"].removeprefix("appliw-")
        if story.fault_between(time - SEEN_LATE_S, time, (node,)) and record["code"] is not None and record["code"] < 0:
            continue
        polls = [
            r for r in story.of("status", "dcstatus", node=node, component=service) if r["code"] and time - SEEN_LATE_S <= r["time"] <= time
        ]
        if not polls:
            yield f"{node}: the watch of {service} ended {_at(story, time)} without a dcstatus that failed"
        elif all(_well(story, node, service, r["begin"], r["time"]) for r in polls):
            yield f"{node}: the watch of {service} ended {_at(story, time)} though the service was well"


def _well(story: Story, node: str, service: str, begin: float, end: float) -> bool:
    """Whether the service was well all that time, by the stand-ins' own account."""
    if story.fault_between(begin - 1, end, (node,), harmful=True):
        return False
    needed = (service, "metadata") if service == "server" else (service,)
    return all(any(a <= begin and b >= end for a, b in story.healthy.get((node, each), [])) for each in needed)


def starts_fail_for_a_reason(story: Story) -> Found:
    """A start script that fails was hindered by the world; so was one that takes long."""
    for run in story.runs:
        if run.event not in EVENTS or run.killed:
            continue
        hindered = story.fault_between(run.begin - 2, run.end, (run.node,), harmful=True)
        if run.script == "start.sh" and run.code and not hindered and not _daemon_died(story, run):
            yield f"{run.node}: start.sh ended with {run.code} {_at(story, run.end)}, and nothing was wrong"
        if run.script == "stop.sh" and run.code:
            yield f"{run.node}: stop.sh ended with {run.code} {_at(story, run.end)}"
        if run.end - run.begin > SCRIPT_S and not hindered:
            yield f"{run.node}: {run.script} took {run.end - run.begin:.0f} s {_at(story, run.begin)}"


def _daemon_died(story: Story, run: Run) -> bool:
    return any(run.begin <= r["time"] <= run.end for r in story.of("driver", "daemon killed", node=run.node))


def outages_are_explained(story: Story) -> Found:
    """No client fails but while the group is on its way, or because something in the world died."""
    for outage in story.outages:
        if not _explained(story, outage):
            yield f"clients failed {outage.failed} times {_at(story, outage.begin)}, and nothing in the world was wrong"


def _explained(story: Story, outage: Outage) -> bool:
    begin = outage.begin
    if any(first - 0.5 <= begin <= last + BLINK_S for first, last in story.changes):
        return True
    died = ("daemon killed", "node killed", "node paused")
    if any(begin - BLINK_S <= r["time"] <= begin + 0.5 for what in died for r in story.of("driver", what)):
        return True
    # a busy machine takes its time to cut a node's power
    return any(f.kind in ("node-kill", "node-stop") and f.touches(begin - BLINK_S, begin + 0.5) for f in story.faults)


def outages_agree(story: Story) -> Found:
    """Where nothing kept an orchestrator from looking, dcsup has the clients' outages on record, and no others."""
    down = _endpoint_down(story)
    for outage in story.outages:
        known = any(first <= outage.end and last >= outage.begin for first, last in down)
        if not known and _comparable(story, outage):
            yield f"clients were cut off for {outage.end - outage.begin:.1f} s {_at(story, outage.begin)}: not on dcsup's record"
    clients_since = min((r["time"] for r in story.records["clients"]), default=FOREVER)
    for first, last in down:
        shared = any(o.begin - SAME_OUTAGE_S <= last and o.end + SAME_OUTAGE_S >= first for o in story.outages)
        if clients_since < first and last != FOREVER and not shared and not _blind(story, first, last):
            yield f"dcsup has the server's address down for {last - first:.1f} s {_at(story, first)}, and clients saw nothing"
    yield from _totals_agree(story, down)


def _comparable(story: Story, outage: Outage) -> bool:
    return outage.end != FOREVER and outage.end - outage.begin > 2 and not _blind(story, outage.begin, outage.end)


def _totals_agree(story: Story, down: list[tuple[float, float]]) -> Found:
    """Over all outages that dcsup could see from begin to end: as long as the time in which clients were not even answered."""
    ours = theirs = 0.0
    count = 0
    for outage in story.outages:
        if not _comparable(story, outage):
            continue
        inside = [(max(a, outage.begin - SAME_OUTAGE_S), min(b, outage.end + SAME_OUTAGE_S)) for a, b in down]
        ours += sum(b - a for a, b in inside if b > a)
        theirs += outage.cut_off_s
        count += 1
    if abs(theirs - ours) > count * PROBED_S:
        yield f"in {count} outages clients were cut off for {theirs:.1f} s in all; dcsup has {ours:.1f} s on record"


def _endpoint_down(story: Story) -> list[tuple[float, float]]:
    found, since = [], None
    for entry in story.entries("EndpointChanged"):
        if entry["data"]["endpoint"] != "server":
            continue
        time = entry["evidence"]["at_ms"] / 1000
        if entry["data"]["up"] and since is not None:
            found.append((since, time))
        since = None if entry["data"]["up"] else time
    return [*found, (since, FOREVER)] if since is not None else found


def _blind(story: Story, begin: float, end: float) -> bool:
    return any(_of_orchestrators(story, fault) and fault.touches(begin - 5, end + 5) for fault in story.faults)


def _of_orchestrators(story: Story, fault: Fault) -> bool:
    """Whether it may keep one of them from looking, or from saying what it saw."""
    if fault.kind.startswith("way-"):
        return fault.on not in story.nodes
    return fault.kind.startswith(("redis-", "leader-", "follower-"))


def lost_nodes_were_gone(story: Story) -> Found:
    """A node is declared lost only if it was gone, frozen, cut off, or without its worker: never for Redis's or an orchestrator's sake."""
    for entry in story.entries("NodeLost"):
        node, time = entry["data"]["node"], int(entry["id"].partition("-")[0]) / 1000
        died = [r for what in ("node killed", "node paused") for r in story.of("driver", what, node=node)]
        gone = any(time - LOST_S <= r["time"] <= time for r in died)
        cut_off = [f for f in story.faults if f.kind.startswith(("worker-", "way-", "node-")) and f.on == node]
        if not gone and not any(f.touches(time - LOST_S, time) for f in cut_off):
            yield f"{node} was declared lost {_at(story, time)}, and was there all the time"


def led_again(story: Story) -> Found:
    """A leader that dies has a successor soon, if there is one who can."""
    for seconds, fault_begin, hindered in takeovers(story):
        if seconds > 8.0 and not hindered:
            yield f"nobody led for {seconds:.1f} s {_at(story, fault_begin)}"


def takeovers(story: Story) -> Iterator[tuple[float, float, bool]]:
    """For each leader that was killed or frozen for long: s until the next took the lead, when, and whether more was wrong then."""
    taken = [int(e["id"].partition("-")[0]) / 1000 for e in story.entries("LeadTaken")]
    for fault in story.faults:
        if not fault.kind.startswith("leader-"):
            continue
        after = next((time for time in taken if time > fault.begin), None)
        if after is None or (fault.kind == "leader-stop" and after > fault.end + 10):
            continue  # it was not away for long enough
        others = [f for f in story.faults if f.number != fault.number and _of_orchestrators(story, f)]
        yield after - fault.begin, fault.begin, any(f.touches(fault.begin - 3, after) for f in others)


RULES: dict[str, Callable[[Story], Found]] = {
    "I1 asked for": asked_for,
    "G8-G15 the guide's verbs": the_guides,
    "I2 agent first": agent_first,
    "I7 once": once,
    "I7 one at a time": one_at_a_time,
    "I7 stays stopped": stays_stopped,
    "double activation": one_node,
    "I5 no fact lost": no_fact_lost,
    "I5 no fact invented": no_fact_invented,
    "I5 in order": in_order,
    "the log says what happened": says_what_happened,
    "I6 fold": folds_to_the_state,
    "told by dcsup itself": nothing_wrong_told,
    "I3 every failover ends": every_failover_ends,
    "I4 schedules": schedules_judged,
    "first law: acts": acts_are_explained,
    "I8 alarms": alarms_are_true,
    "first law: starts": starts_fail_for_a_reason,
    "first law: outages": outages_are_explained,
    "outages agree": outages_agree,
    "lost nodes": lost_nodes_were_gone,
    "led again": led_again,
}


def main(argv: list[str]) -> int:
    """Judge a kept story: 0 nothing is wrong, 1 a rule was broken."""
    parser = argparse.ArgumentParser("checker", description="judges the records that a soak left behind")
    parser.add_argument("folder", type=Path, help="the soak's folder")
    violations = check(Story.load(parser.parse_args(argv).folder))
    for violation in violations:
        print(f"VIOLATED {violation}")
    print(f"{len(RULES)} rules, {len(violations)} violations.")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
