"""The checker itself, on doctored records: a good story breaks no rule, and each rule finds the violation that it is for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from deploy.sandbox.checker import RULES, check, takeovers
from deploy.sandbox.story import NAMES, Story

Record = dict[str, Any]
LAUNCHER = [{"pid": 1, "name": "python", "cmdline": "python -I -S workers/launcher.py {}"}]


class Book:
    """The records of a short story: a start on node1, the server killed, a failover to node2, and the leading orchestrator killed."""

    def __init__(self) -> None:
        self.records: dict[str, list[Record]] = {name: [] for name in NAMES}
        self.log: list[Record] = []
        self.results = {"fold": "same", "verify": "same"}
        self._numbers: dict[str, int] = {}
        for node in ("node1", "node2"):
            self.add("driver", 0.0, "node started", node=node)
        self.tell(0.5, "LeadTaken", "_leader", {"epoch": 1})
        self._start("node1", 1.0, "START", ("start", "recover"), 100)
        self._serve("node1", 5.0, 20.0)
        self._crash()
        self._start("node2", 23.0, "FAILOVER", ("recover", "recover"), 200)
        self._serve("node2", 27.0, 60.0)
        self._clients()
        self.failover()
        self.fault(2, "leader-kill", "a", 40.0, 41.0, harmless=True)
        self.tell(42.0, "LeadTaken", "_leader", {"epoch": 2})

    # --- what the tests doctor with

    def add(self, name_of_file: str, time: float, what: str, /, **fields: Any) -> None:
        self.records[name_of_file].append({"time": time, "what": what, **fields})

    def fault(self, number: int, kind: str, on: str, begin: float, end: float, *, harmless: bool) -> None:
        self.add("soak", begin, "fault", number=number, kind=kind, on=on, harmless=harmless)
        self.add("soak", end, "healed", number=number)

    def verb(self, node: str, component: str, verb: str, begin: float, *, told: bool = True) -> None:
        """A verb that is good, and the facts of it."""
        end, code = begin + 0.1, 0
        common = {"node": node, "component": component, "verb": verb, "pid": int(begin * 1000), "begin": begin}
        self.records["verbs"].append({"time": begin, "what": "begin", **common, "chain": LAUNCHER})
        self.records["verbs"].append({"time": end, "what": "end", **common, "end": end, "code": code})
        if told:
            data = {"service": component, "verb": verb}
            self.told_by(node, begin, "CommandStarted", data)
            self.told_by(node, end, "CommandEnded", {**data, "result": "ok", "ran": True, "duration_s": 0.1})

    def told_by(self, node: str, time: float, kind: str, data: Record) -> None:
        """A fact on the node's disk, and in the log."""
        seq = self._numbers.get(node, 0) + 1
        name = f"{time}.fact"
        content = json.dumps({"type": kind, "data": data})
        self.add("outbox", time, "written", node=node, name=name, content=content)
        self.add("outbox", time, "numbered", node=node, name=name, stream=f"s-{node}", seq=seq)
        self.tell(time, kind, node, data)

    def tell(self, time: float, kind: str, inbox: str, data: Record, *, fact: bool = True) -> Record:
        """An entry of the log."""
        node = None if inbox.startswith("_") else inbox
        entry: Record = {"id": f"{int(time * 1000)}-{len(self.log)}", "time": str(time), "type": kind, "node": node}
        entry |= {"source_id": None, "data": data}
        if fact:
            self._numbers[inbox] = self._numbers.get(inbox, 0) + 1
            entry |= {"source_id": f"s-{inbox}:{self._numbers[inbox]}", "evidence": {"inbox": inbox, "at_ms": time * 1000}}
        self.log.append(entry)
        return entry

    def script(self, node: str, name: str, begin: float, end: float, event: str, code: int = 0) -> None:
        environment = {"CLP_EVENT": event}
        self.add("cluster", begin, "script-begin", node=node, script=name, environment=environment)
        self.add("cluster", end, "script-end", node=node, script=name, environment=environment, code=code, pid=1)

    def daemon(self, node: str, component: str, verb: str, started: float, healthy: float, pid: int) -> None:
        self.add("daemons", started, "started", node=node, component=component, verb=verb, pid=pid)
        self.add("daemons", healthy, "healthy", node=node, component=component, verb=verb, pid=pid)

    def story(self) -> Story:
        """The story as it would be read: records in order of time, the log in a chain."""
        for name, key in (("cluster", "time"), ("clients", "time"), ("outbox", "time")):
            self.records[name].sort(key=lambda record: float(record[key]))
        self.log.sort(key=lambda entry: tuple(map(int, entry["id"].split("-"))))
        before, lines = "0" * 64, []
        for entry in self.log:
            body = json.dumps(entry, ensure_ascii=False).encode()
            before = hashlib.sha256(before.encode() + body).hexdigest()
            lines.append(body[:-1] + b',"hash":"' + before.encode() + b'"}')
        return Story(self.records, [json.loads(line) for line in lines], lines, dict(self.results))

    # --- the story

    def _start(self, node: str, at: float, event: str, verbs: tuple[str, str], pid: int) -> None:
        self.add("cluster", at, "group-activation-begin", node=node, event=event)
        self.script(node, "start.sh", at + 0.1, at + 4.5, event)
        self.verb(node, "agent", verbs[0], at + 1.0)
        self.daemon(node, "agent", verbs[0], at + 1.05, at + 2.0, pid)
        self.verb(node, "server", verbs[1], at + 2.5)
        self.daemon(node, "metadata", verbs[1], at + 2.55, at + 2.7, pid + 1)
        self.daemon(node, "server", verbs[1], at + 2.55, at + 4.0, pid + 2)
        self.add("cluster", at + 4.6, "group-activation-end", node=node, event=event, ok=True)

    def _serve(self, node: str, begin: float, end: float) -> None:
        self.records["runs"] += [{"schedule": "夜間", "node": node, "time": begin + n / 2} for n in range(int((end - begin) * 2))]

    def _crash(self) -> None:
        self.fault(1, "server-kill", "node1", 20.0, 21.0, harmless=False)
        self.add("driver", 20.0, "daemon killed", node="node1", component="server", pid=102)
        self.add("status", 20.5, "dcstatus", node="node1", component="server", code=1, begin=20.4)
        self.add("cluster", 20.8, "monitor-detected", node="node1", monitor="appliw-server", code=1)
        self.add("cluster", 20.8, "monitor-acted", node="node1", monitor="appliw-server", action="failover")
        self.add("cluster", 20.9, "group-deactivation-begin", node="node1", factor="GROUPFAILOVER")
        self.script("node1", "stop.sh", 21.0, 22.5, "START")
        self.verb("node1", "server", "faststop", 21.2)
        self.verb("node1", "agent", "stop", 21.6)
        for pid, component in ((100, "agent"), (101, "metadata")):
            self.add("daemons", 21.7, "ended", node="node1", component=component, pid=pid)

    def _clients(self) -> None:
        for tick in range(60, 600, 5):
            time = tick / 10
            error = "" if not 20 <= time < 27.5 else "ConnectionRefusedError" if time < 26 else "ERROR starting"
            self.records["clients"].append({"time": time, "ok": not error, "error": error})
        self.tell(20.2, "EndpointChanged", "_leader", {"endpoint": "server", "up": False})
        self.tell(26.0, "EndpointChanged", "_leader", {"endpoint": "server", "up": True})

    def failover(self) -> None:
        points = {"symptom": 20_500.0, "verified": 27_000.0, "judged": 28_000.0}
        record = {"id": "F1", "node_to": "node2", "outcome": "completed", "kind": "failure", "points": points}
        self.tell(20.5, "FailoverOpened", "node1", {"failover": {"id": "F1"}}, fact=False)
        judged = {"judgements": [{"schedules": [{"name": "夜間", "outcome": "resumed"}]}]}
        self.tell(28.0, "FailoverEnded", "node2", {"failover": record | judged}, fact=False)

    # --- what is looked for

    def entry(self, kind: str) -> Record:
        return next(entry for entry in self.log if entry["type"] == kind)

    def take(self, name: str, what: str, **fields: Any) -> Record:
        """Take a record out."""
        found = next(r for r in self.records[name] if r["what"] == what and all(r[key] == value for key, value in fields.items()))
        self.records[name].remove(found)
        return found


def verb_without_a_script(book: Book) -> None:
    book.verb("node1", "server", "recover", 35.0)


def verb_on_the_other_node(book: Book) -> None:
    book.verb("node2", "agent", "start", 2.0)


def verb_long_after_its_script_was_killed(book: Book) -> None:
    book.add("cluster", 50.0, "script-begin", node="node2", script="stop.sh", environment={"CLP_EVENT": "FAILOVER"})
    book.add("cluster", 51.0, "script-end", node="node2", script="stop.sh", environment={"CLP_EVENT": "FAILOVER"}, code=-9)
    book.verb("node2", "server", "faststop", 55.0)


def start_on_recover(book: Book) -> None:
    book.script("node1", "start.sh", 30.0, 33.0, "RECOVER")
    book.verb("node1", "agent", "start", 31.0)


def wrong_verb(book: Book) -> None:
    for record in book.records["verbs"]:
        record["verb"] = {"faststop": "stop"}.get(record["verb"], record["verb"])


def server_before_its_agent(book: Book) -> None:
    book.take("daemons", "healthy", component="agent", node="node2")


def ran_twice(book: Book) -> None:
    book.verb("node2", "agent", "recover", 24.5)


def ran_side_by_side(book: Book) -> None:
    book.take("verbs", "end", component="agent", node="node2")
    common = {"node": "node2", "component": "agent", "verb": "recover", "pid": 24000, "begin": 24.0}
    book.records["verbs"].append({"time": 26.0, "what": "end", **common, "end": 26.0, "code": None})
    book.verb("node2", "agent", "recover", 24.5)


def up_after_its_stop(book: Book) -> None:
    book.daemon("node1", "agent", "start", 29.0, 30.0, 300)


def up_on_two_nodes(book: Book) -> None:
    book.take("daemons", "ended", component="agent")


def fact_missing_in_the_log(book: Book) -> None:
    book.add("outbox", 30.0, "written", node="node1", name="x.fact", content="{}")
    book.add("outbox", 30.0, "numbered", node="node1", name="x.fact", stream="s-node1", seq=99)


def fact_twice_in_the_log(book: Book) -> None:
    book.log.append(book.entry("CommandStarted") | {"id": "59000-1"})


def fact_never_numbered(book: Book) -> None:
    book.add("outbox", 30.0, "written", node="node1", name="x.fact", content="{}")


def witness_was_blind(book: Book) -> None:
    book.add("outbox", 30.0, "overflow", node=None)


def fact_nobody_wrote(book: Book) -> None:
    book.tell(31.0, "ServicePolled", "node1", {})


def fact_changed_on_its_way(book: Book) -> None:
    book.entry("CommandStarted")["data"] = {"service": "agent", "verb": "recover"}


def fact_left_out(book: Book) -> None:
    book.log.remove(book.entry("EndpointChanged"))


def verb_not_told(book: Book) -> None:
    book.script("node2", "stop.sh", 50.0, 52.0, "FAILOVER")
    book.verb("node2", "server", "faststop", 51.0, told=False)


def command_that_never_ran(book: Book) -> None:
    book.told_by("node2", 50.0, "CommandEnded", {"service": "server", "verb": "faststop", "result": "ok", "ran": True, "duration_s": 0.1})


def folds_differently(book: Book) -> None:
    book.results["fold"] = "different"


def decides_differently(book: Book) -> None:
    book.results["verify"] = "entry 7 is another"


def quarantined(book: Book) -> None:
    book.tell(30.0, "FactQuarantined", "node1", {"reason": "invalid"}, fact=False)


def tail_lost(book: Book) -> None:
    book.told_by("node1", 30.0, "LogTailLost", {"seen_id": "1-1", "found_id": "0-0"})


def dropped_without_a_full_disk(book: Book) -> None:
    book.told_by("node1", 30.0, "FactsDropped", {"count": 1, "reason": "damaged"})


def failover_left_open(book: Book) -> None:
    book.tell(50.0, "FailoverOpened", "node1", {"failover": {"id": "F2"}}, fact=False)


def schedule_not_told(book: Book) -> None:
    book.entry("FailoverEnded")["data"]["failover"]["judgements"] = []


def schedule_not_resumed(book: Book) -> None:
    book.records["runs"] = [r for r in book.records["runs"] if r["node"] == "node1"]


def schedule_not_missed(book: Book) -> None:
    record = book.entry("FailoverEnded")["data"]["failover"]
    record["points"]["judged"] = 32_000.0
    record["judgements"][0]["schedules"][0]["outcome"] = "missed"
    book.records["runs"] += [{"schedule": "夜間", "node": "node2", "time": 27.0 + n / 4} for n in range(40)]


def moved_though_nobody_asked(book: Book) -> None:
    book.add("cluster", 50.0, "group-deactivation-begin", node="node2", factor="GROUPMOVE")
    book.add("cluster", 52.0, "group-activation-end", node="node1", ok=True)


def taken_from_a_living_node(book: Book) -> None:
    book.add("cluster", 50.0, "group-takeover", node="node1", previous="node2")
    book.add("cluster", 52.0, "group-activation-end", node="node1", ok=True)


def stop_that_shuts_the_system_down(book: Book) -> None:
    book.add("cluster", 22.5, "os-shutdown", node="node1", reason="script1 could not be stopped", real=False)


def alarm_without_a_poll(book: Book) -> None:
    book.take("status", "dcstatus")


def alarm_of_a_good_service(book: Book) -> None:
    book.take("driver", "daemon killed")
    book.take("soak", "fault", number=1)


def alarm_for_redis_sake(book: Book) -> None:
    """A harmless fault at the same moment and on the same node explains nothing."""
    alarm_of_a_good_service(book)
    book.fault(3, "worker-kill", "node1", 20.0, 21.0, harmless=True)


def start_failed_for_nothing(book: Book) -> None:
    end = next(r for r in book.records["cluster"] if r["what"] == "script-end" and r["node"] == "node2")
    end["code"] = 40


def stop_failed(book: Book) -> None:
    end = next(r for r in book.records["cluster"] if r["what"] == "script-end" and r["script"] == "stop.sh")
    end["code"] = 1


def start_took_a_minute(book: Book) -> None:
    next(r for r in book.records["cluster"] if r["what"] == "script-end" and r["node"] == "node2")["time"] += 100


def clients_failed_for_nothing(book: Book) -> None:
    next(r for r in book.records["clients"] if r["time"] == 50.0).update(ok=False, error="ConnectionRefusedError")


def outage_not_on_record(book: Book) -> None:
    book.log = [entry for entry in book.log if entry["type"] != "EndpointChanged"]


def outage_that_nobody_had(book: Book) -> None:
    book.tell(54.0, "EndpointChanged", "_leader", {"endpoint": "server", "up": False})
    book.tell(56.0, "EndpointChanged", "_leader", {"endpoint": "server", "up": True})


def outage_much_shorter_on_record(book: Book) -> None:
    book.log = [entry for entry in book.log if entry["type"] != "EndpointChanged"]
    book.tell(20.2, "EndpointChanged", "_leader", {"endpoint": "server", "up": False})
    book.tell(20.4, "EndpointChanged", "_leader", {"endpoint": "server", "up": True})


def node_lost_that_was_there(book: Book) -> None:
    book.fault(3, "redis-kill", "redis", 48.0, 49.0, harmless=True)
    book.tell(50.0, "NodeLost", "_leader", {"node": "node2"})


def nobody_led(book: Book) -> None:
    entry = [entry for entry in book.log if entry["type"] == "LeadTaken"][-1]
    entry["id"] = "59000-99"


DOCTORED: tuple[tuple[str, Callable[[Book], None]], ...] = (
    ("I1 asked for", verb_without_a_script),
    ("I1 asked for", verb_on_the_other_node),
    ("I1 asked for", verb_long_after_its_script_was_killed),
    ("I1 asked for", start_on_recover),
    ("G8-G15 the guide's verbs", wrong_verb),
    ("I2 agent first", server_before_its_agent),
    ("I7 once", ran_twice),
    ("I7 one at a time", ran_side_by_side),
    ("I7 stays stopped", up_after_its_stop),
    ("double activation", up_on_two_nodes),
    ("I5 no fact lost", fact_missing_in_the_log),
    ("I5 no fact lost", fact_twice_in_the_log),
    ("I5 no fact lost", fact_never_numbered),
    ("I5 no fact lost", witness_was_blind),
    ("I5 no fact invented", fact_nobody_wrote),
    ("I5 no fact invented", fact_changed_on_its_way),
    ("I5 in order", fact_left_out),
    ("the log says what happened", verb_not_told),
    ("the log says what happened", command_that_never_ran),
    ("I6 fold", folds_differently),
    ("I6 fold", decides_differently),
    ("told by dcsup itself", quarantined),
    ("told by dcsup itself", tail_lost),
    ("told by dcsup itself", dropped_without_a_full_disk),
    ("I3 every failover ends", failover_left_open),
    ("I4 schedules", schedule_not_told),
    ("I4 schedules", schedule_not_resumed),
    ("I4 schedules", schedule_not_missed),
    ("first law: acts", moved_though_nobody_asked),
    ("first law: acts", taken_from_a_living_node),
    ("first law: acts", stop_that_shuts_the_system_down),
    ("I8 alarms", alarm_without_a_poll),
    ("I8 alarms", alarm_of_a_good_service),
    ("I8 alarms", alarm_for_redis_sake),
    ("first law: starts", start_failed_for_nothing),
    ("first law: starts", stop_failed),
    ("first law: starts", start_took_a_minute),
    ("first law: outages", clients_failed_for_nothing),
    ("outages agree", outage_not_on_record),
    ("outages agree", outage_that_nobody_had),
    ("outages agree", outage_much_shorter_on_record),
    ("lost nodes", node_lost_that_was_there),
    ("led again", nobody_led),
)


def test_a_good_story_breaks_no_rule() -> None:
    """What happened as it should is called good; the successor of a dead leader is timed."""
    story = Book().story()
    assert check(story) == []
    assert [(round(seconds, 3), hindered) for seconds, _, hindered in takeovers(story)] == [(2.0, False)]


@pytest.mark.parametrize(("rule", "doctor"), DOCTORED, ids=lambda value: value if isinstance(value, str) else value.__name__)
def test_each_rule_finds_the_violation_that_it_is_for(rule: str, doctor: Callable[[Book], None]) -> None:
    """I1-I8 and the first law: one thing is changed in the records of a good story, and the rule that it breaks says so."""
    book = Book()
    doctor(book)
    assert any(text.startswith(f"{rule}: ") for text in check(book.story()))


def test_every_rule_was_broken_once() -> None:
    """No rule is in the list that no doctored story breaks."""
    assert {rule for rule, _ in DOCTORED} == set(RULES)


def test_a_changed_line_breaks_the_chain() -> None:
    """I5: what was changed in the file afterwards is seen."""
    story = Book().story()
    story.lines[3] = story.lines[3].replace(b"server", b"severe").replace(b"agent", b"tenga")
    assert any(text.startswith("I5 in order: ") and "hash" in text for text in check(story))


def test_a_second_run_is_no_violation_when_the_first_end_is_unknown() -> None:
    """I7: a command that was killed with its launcher may be run again by the script."""
    book = Book()
    book.take("verbs", "end", component="agent", node="node2")
    book.verb("node2", "agent", "recover", 24.5)
    assert not [text for text in check(book.story()) if text.startswith("I7")]


def test_a_second_run_is_no_violation_when_there_was_no_room_for_the_first_end() -> None:
    """I7: an end that a full disk could not take is unknown to everybody on the node."""
    book = Book()
    ran_twice(book)
    book.fault(3, "disk-full", "node2", 23.5, 26.0, harmless=True)
    assert not [text for text in check(book.story()) if text.startswith("I7")]


def test_what_a_full_disk_or_a_power_cut_swallowed_need_not_be_told() -> None:
    """A fact that never reached a disk is not lost: the verb ran, and nobody could write it down."""
    book = Book()
    verb_not_told(book)
    book.fault(3, "disk-full", "node2", 49.0, 53.0, harmless=True)
    assert not [text for text in check(book.story()) if text.startswith("the log says")]
