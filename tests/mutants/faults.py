"""The faults: each is one change of text in one file, and what it would break.

`sim`: whether the simulation runs that code (the real one, in one process); `tests`: what else must notice, in the order in which it is
asked. A fault with both is caught by whichever notices first; `tests/mutants/test_faults.py` says when a text is not there any more.
"""

from __future__ import annotations

from typing import NamedTuple


class Fault(NamedTuple):
    name: str
    file: str
    old: str
    """Stands there exactly once."""
    new: str
    breaks: str
    """The rule or invariant that does not hold any more, in a few words."""
    tests: tuple[str, ...] = ()
    sim: bool = False


FAULTS: tuple[Fault, ...] = (
    # --- commit
    Fault(
        "head not compared (Redis)", "orchestrator/redis_store.py",
        "if found ~= ARGV[1] then return {0, found, ''} end", "",
        "one history: a deposed leader writes on (I6)", ("tests/contract", "tests/orchestrator/test_engine_takeover.py"),
    ),
    Fault(
        "head not compared (memory)", "orchestrator/memory_store.py",
        "if server.get(wire.head(commit.cluster)) != expected:", "if False:",
        "the same, where the simulation sees it", ("tests/contract",), sim=True,
    ),
    Fault(
        "jobs queued before the head is compared", "orchestrator/redis_store.py",
        "for i = 1, tonumber(ARGV[3]) do redis.call(following()) end\nredis.call('SET', KEYS[1], head)",
        "for i = 1, tonumber(ARGV[3]) do redis.call(following()) end",
        "the commit is not one: its head is never set", ("tests/contract",),
    ),
    Fault(
        "epoch not raised", "orchestrator/lease.py",
        "epoch_seen) + 1", "epoch_seen, 1)",
        "two leaders of one epoch", ("tests/orchestrator/test_engine_takeover.py",), sim=True,
    ),
    Fault(
        "a lost answer taken for a commit that did not happen", "orchestrator/loop.py",
        "if head is not None and led.pending is not None and led.pending.head.same_commit(head):",
        "if head is not None and led.pending is not None and False:",
        "commits whose answer was lost are settled", ("tests/orchestrator/test_engine_loop.py",), sim=True,
    ),
    Fault(
        "a lost answer taken for a commit that happened", "orchestrator/loop.py",
        "if head is not None and led.pending is not None and led.pending.head.same_commit(head):",
        "if led.pending is not None:",
        "the state is what the log says (I6)", ("tests/orchestrator/test_engine_loop.py",), sim=True,
    ),
    # --- intake
    Fault(
        "duplicates taken again", "statemachines/cluster.py",
        'return "duplicate"', 'return "next"',
        "each fact once (I5)", ("tests/orchestrator/test_engine_intake.py",), sim=True,
    ),
    Fault(
        "gaps stepped over", "statemachines/cluster.py",
        "envelope.seq in (last + 1, envelope.oldest)", "True",
        "no fact is lost (I5)", ("tests/orchestrator/test_engine_intake.py",), sim=True,
    ),
    Fault(
        "what lies behind missing numbers taken before the oldest", "statemachines/cluster.py",
        "envelope.seq in (last + 1, envelope.oldest)", "envelope.seq == last + 1 or envelope.oldest > last + 1",
        "what a node still has is not lost (I5)", ("tests/statemachines/test_edge_stories.py",),
    ),
    Fault(
        "a deadline judged before the backlog", "orchestrator/intake.py",
        "entry.ms, entry.inbox == wire.LEADER_INBOX,", "entry.inbox != wire.LEADER_INBOX, entry.ms,",
        "a deadline is judged after whatever arrived before it", ("tests/orchestrator/test_engine_intake.py",), sim=True,
    ),
    Fault(
        "quarantined without a word", "orchestrator/intake.py",
        "    batch.quarantined.append(Quarantined(entry.inbox, entry.id, reason, entry.raw or b\"\"))\n", "",
        "what is put aside is kept with its reason (I5)", ("tests/orchestrator/test_engine_intake.py",),
    ),
    # --- core
    Fault(
        "the chain does not cover the entry before", "statemachines/entries.py",
        "hashlib.sha256(previous_hash.encode() + body)", "hashlib.sha256(body)",
        "a log that was changed does not verify", ("tests/orchestrator/test_surface_chain.py", "tests/statemachines"),
    ),
    Fault(
        "a server started without its agent", "workers/launcher.py",
        "        self._check_agent()\n", "",
        "I2, G23", ("tests/workers/test_rqworker.py",), sim=True,
    ),
    Fault(
        "a command issued twice", "statemachines/states.py",
        "return self.job_id is None and self.started_ms is None and self.result is None", "return True",
        "the orchestrator never issues (T, N) again (I7)", ("tests/statemachines",), sim=True,
    ),
    # --- tickets and journal
    Fault(
        "a claim without a rename", "workers/tickets.py",
        "            ticket.path.rename(target)\n", "            target.write_bytes(ticket.path.read_bytes())\n",
        "N2: a rename decides", ("tests/worlds", "tests/protocol/test_node_rules.py"), sim=True,
    ),
    Fault(
        "the journal not flushed", "workers/files.py",
        "    aside = path.with_name(", "    flush = False\n    aside = path.with_name(",
        "what was recorded survives a power cut (N5, I5)", ("tests/worlds",), sim=True,
    ),
    Fault(
        "a name flushed, and not what stands behind it", "workers/files.py",
        "            if flush:\n                os.fsync(file.fileno())", "            if False:\n                os.fsync(file.fileno())",
        "what was recorded survives a power cut (N5, I5)", ("tests/workers/test_forwarder.py",),
    ),
    Fault(
        "the journal not asked", "workers/journal.py",
        "    for state in _STATES:\n        fields =", "    for state in ():\n        fields =",
        "N5: a verb runs once for (T, N)", ("tests/workers/test_rqworker.py", "tests/worlds"), sim=True,
    ),
    Fault(
        "a claim without a second look at the journal", "workers/launcher.py",
        "        if (entry := journal.read(self.folder, self.spec.ticket, self.spec.n)) is not None:\n            tickets.release(busy)",
        "        if (entry := None) is not None:\n            tickets.release(busy)",
        "N5: a twin ran it between check and claim", ("tests/worlds", "tests/protocol"),
    ),
    Fault(
        "a command for a script that is gone", "workers/tickets.py",
        "return abs(time.time() - alive_path(node_folder, ticket).stat().st_mtime) <= limit_s", "return True",
        "N7: a ticket lives with its script", ("tests/protocol/test_node_rules.py", "tests/worlds"), sim=True,
    ),
    Fault(
        "a ticket of another boot", "workers/launcher.py",
        "if ticket.boot != self.spec.boot:", "if False:",
        "N4, N7: another boot's ticket is nobody's", ("tests/protocol/test_node_rules.py", "tests/workers/test_rqworker.py"),
    ),
    Fault(
        "lost while its process lives", "workers/reaper.py",
        "if not is_gone(ticket, boot) or not ticket.path.exists():", "if not ticket.path.exists():",
        "N3: lost only when the process is seen gone", ("tests/protocol/test_node_rules.py", "tests/worlds"), sim=True,
    ),
    Fault(
        "the ground not cleared", "deploy/clusterpro/linux/lib-tickets.sh",
        "            [ \"$group\" = \"$DCSUP_GROUP\" ] || continue\n", "            continue\n",
        "N6: every script first clears the ground", ("tests/protocol/test_node_rules.py",),
    ),
    Fault(
        "the ticket not closed", "deploy/clusterpro/linux/lib-tickets.sh",
        "            rename_ticket \"$ticket\" \"$ct_state\" done && break\n", "            break\n",
        "N8: a script closes its ticket before it returns", ("tests/protocol/test_node_rules.py",),
    ),
    Fault(
        "a sign of life from a script without its ticket", "deploy/clusterpro/linux/lib-tickets.sh",
        '[ -n "$ticket_made" ] && [ -z "$refused" ] || return 0', '[ -n "$ticket_made" ] || return 0',
        "N7: nobody claims beside a script that could not take its ticket", ("tests/faults/test_node_damage.py",),
    ),
    Fault(
        "the ticket not tried again", "deploy/clusterpro/linux/start.sh",
        "    take_ticket || return 1\n    command_of", "    command_of",
        "N2: a script runs what it has taken", ("tests/faults/test_node_damage.py",),
    ),
    # --- hooks and watch
    Fault(
        "verified by a poll of before the start", "workers/hooks/start.py",
        " and status.verified and status.ticket == self.ticket_id", "",
        "a start returns 0 only for what it started itself", ("tests/protocol/test_hooks.py",), sim=True,
    ),
    Fault(
        "stopped by a poll of before the stop", "workers/hooks/stop.py",
        "entry.mono_s < status.last_started <= status.mono", "True",
        "not running: a dcstatus that began after the verb ended", ("tests/protocol/test_hooks.py",), sim=True,
    ),
    Fault(
        "a poll that did not return taken for a failure", "workers/polls.py",
        "            self._no_answer()\n", "            self._bad_answer()\n",
        "unknown is no failure: the guide would only wait (I8)", ("tests/workers/test_watch.py",), sim=True,
    ),
    # --- forwarder
    Fault(
        "a fact let go when it was handed in", "workers/courier.py",
        "            offer.handed_in = seq\n", "            offer.handed_in = seq\n            offer.sequence.acknowledge(seq)\n",
        "a fact stays on the disk until the mark has passed it (I5)", ("tests/workers/test_forwarder.py",), sim=True,
    ),
    Fault(
        "not offered again when the log lost its tail", "workers/forwarder.py",
        "        self.courier.again()\n", "",
        "outboxes offer again (I5)", ("tests/workers/test_forwarder.py",),
    ),
    Fault(
        "numbers begin anew after a restart", "workers/sequences.py",
        "                self.last = int(match[1])\n", "                self.last = 0\n",
        "numbers are consecutive and given once (I5)", ("tests/workers/test_forwarder.py", "tests/worlds"), sim=True,
    ),
    # --- workers and lead
    Fault(
        "a job after its time", "workers/jobs.py",
        "    if late_ms > 0:\n", "    if False:\n",
        "a job that is old runs nothing", ("tests/workers/test_rqworker.py",),
    ),
    Fault(
        "any signature will do", "statemachines/signing.py",
        "    return any(fitting)", "    return bool(fitting)",
        "writing to a queue is not enough to make a node act", ("tests/security/test_jobs.py",),
    ),
    Fault(
        "a signature for any node and any job", "statemachines/signing.py",
        '["dcsup-job-1", cluster, node, job_id, unsigned(payload)]', '["dcsup-job-1", unsigned(payload)]',
        "a job cannot be moved", ("tests/security/test_jobs.py",),
    ),
    Fault(
        "every node holds the cluster's key", "statemachines/signing.py",
        '    return _digest(cluster_key, f"dcsup:{cluster}:{node}")', "    return cluster_key",
        "whoever steals a node's key can forge nothing for its sister", ("tests/security/test_jobs.py",),
    ),
    Fault(
        "an unsigned job is believed", "workers/keys.py",
        'else "it is not signed"', "else None",
        "a node with a key refuses what is not signed", ("tests/security/test_jobs.py",),
    ),
    Fault(
        "what a lost connection took stays in between", "workers/rqworker.py",
        "        if self._unsettled:\n            self._recover_intermediate()\n", "",
        "no command is lost to a half-open connection", ("tests/faults/test_workers_jobs.py",),
    ),
    Fault(
        "signs of life judged at once after an outage", "orchestrator/loop.py",
        "return found if now - self._together_since >= led.settings.node_ttl + RECONNECT_S else {}", "return found",
        "no node is declared lost that was there all the time", ("tests/orchestrator/test_engine_loop.py", "tests/faults"), sim=True,
    ),
    Fault(
        "the lead taken from the living", "orchestrator/lease.py",
        "return leader.orchestrator in (None, self.identity) or not leader.lives", "return True",
        "one leader at a time, while it lives", ("tests/orchestrator/test_engine_takeover.py",),
    ),
    Fault(
        "a snapshot of another history", "orchestrator/history.py",
        'return "the log has another history"', 'return ""',
        "state is the fold of this log (I6)", ("tests/orchestrator/test_engine_loop.py",),
    ),
    Fault(
        "schedules judged without having been seen", "statemachines/judging.py",
        "observed = status.latest if fresh and", "observed = status.latest if",
        "every verdict has evidence of after the takeover (I4)", ("tests/statemachines",), sim=True,
    ),
)  # fmt: skip
