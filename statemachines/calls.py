"""What the cluster manager asks for: start and stop calls, what became of their commands, and when a service is up.

The *current call* is the last one that was accepted: only its commands are issued, and only what it tells moves a state. What a call that
is over still tells, because its node was cut off, completes the record of its failover.
"""

from __future__ import annotations

from typing import Any

from statemachines import facts as f
from statemachines import records
from statemachines.deciding import NOT_VERIFIED, SERVED
from statemachines.judging import Judging
from statemachines.states import Kind, TicketStatus


class Calls(Judging):
    """A step that knows about calls of the group's scripts."""

    # --- a start is called

    def on_start_hook(self, node: str, fact: f.StartHookCalled) -> None:
        ticket = self.state.tickets[fact.ticket]
        if self._is_over(ticket):
            return
        self.compare_with_table(ticket)
        if self.state.active is not None and self.state.active != node:
            self.take_away(self.state.active)
        failing = any(s.state == "failing-over" for s in self.state.services.values())
        conditions = ["failover"] if fact.event == "FAILOVER" or failing or self._failover_open() else []
        self.fire_failover("start_called", conditions, node=node, clp_event=fact.event)
        self.begin_term(node, ticket)
        self.fire_node(node, "activated")
        for name in self.state.services:
            self.fire_service(name, "start_called", conditions)
        self.turn(fact.ticket, 1)

    def _failover_open(self) -> bool:
        return self.state.failover is not None and self.state.failover.state != "resuming"

    def _is_over(self, ticket: TicketStatus) -> bool:
        """Whether a call is told for the second time, or after a later one was: then it moves nothing."""
        if ticket.ticket in self.before.tickets:
            self.skip(None, "call-known", detail=ticket.ticket)
            return True
        stop = self.state.tickets.get(self.state.stop_ticket or "")
        if ticket.called_ms < self.state.term_ms or (stop is not None and ticket.called_ms < stop.called_ms):
            self.complete_record(ticket)
            self.skip(None, "older-call", detail=ticket.ticket)
            return True
        return False

    def take_away(self, node: str) -> None:
        """What `node` serves is not served any more; a node that serves nothing is not part of the failover."""
        served = [name for name, service in self.state.services.items() if service.node == node]
        moved = [self.fire_service(name, "taken_away").moved for name in served]
        if any(moved):
            self.fire_node(node, "taken_away")

    def begin_term(self, node: str, ticket: TicketStatus | None) -> None:
        """The group comes up on `node`: the next term. Without a ticket: somebody else brought it up, and dcsup takes it over."""
        term = self.state.term + 1
        services: dict[str, Any] = {}
        for name in self.state.services:
            command = next((c for c in ticket.commands if c.service == name), None) if ticket else None
            services[name] = {"node": node, **NOT_VERIFIED, "last_start_verb": command.verb if command else None}
        changes: dict[str, Any] = {
            "term": term, "term_ms": self.at_ms, "active": node, "services": services,
            "start_ticket": ticket.ticket if ticket else None,
            "nodes": {name: {"role": "active" if name == node else "standby"} for name in self.state.nodes},
            "schedules": self.owe_schedules(), "deadlines": self._call_deadlines(),
        }  # fmt: skip
        if ticket is not None:
            changes["tickets"] = {ticket.ticket: ticket.model_copy(update={"term": term}).model_dump(mode="json")}
            changes["deadlines"][f"start:{ticket.ticket}"] = self.due(self.settings.start.deadline)
        self.decide("TermBegan", None, node=node, data={"term": term, "ticket": ticket.ticket if ticket else None}, changes=changes)

    def _call_deadlines(self) -> dict[str, int | None]:
        """Those of the calls before, which a new call takes the place of."""
        return {name: None for name in self.state.deadlines if name.startswith(("start:", "stop:", "resume:"))}

    # --- a stop is called

    def on_stop_hook(self, node: str, fact: f.StopHookCalled) -> None:
        ticket = self.state.tickets[fact.ticket]
        if self._is_over(ticket) or self._is_elsewhere(ticket):
            return
        self.compare_with_table(ticket)
        kind = self._kind_of_stop(fact.factor)
        conditions = ["moving"] if kind is not None else []
        self.decide(
            "StopAccepted",
            None,
            node=node,
            data={"ticket": fact.ticket, "factor": fact.factor},
            changes={
                "stop_ticket": fact.ticket,
                "deadlines": self._call_deadlines() | {f"stop:{fact.ticket}": self.due(self.settings.stop.deadline)},
            },
        )
        self.freeze_baseline()
        self.fire_failover("stop_called", conditions, kind=kind, node=node)
        self.freeze_baseline()  # a suspicion that ends here drops the one that it froze
        if kind is not None:
            self.fire_node(node, "evacuated")
        for name in self.state.services:
            self.fire_service(name, "stop_called", conditions)
        self.turn(fact.ticket, 1)

    def _is_elsewhere(self, ticket: TicketStatus) -> bool:
        """A stop on a node that does not have the group touches nothing of what is served; its script needs no one to go on."""
        if self.state.active in (None, ticket.node):
            return False
        self.complete_record(ticket)
        self.skip(None, "stop-elsewhere", detail=ticket.ticket)
        self.issue_verdict("G1", ticket, 75, f"the group is on {self.state.active}, not here")
        return True

    def _kind_of_stop(self, factor: str) -> Kind | None:
        """What a stop is the beginning of; None: the group is only stopped."""
        suspected = self.state.failover is not None and self.state.failover.state in ("suspected", "acting")
        if suspected and factor in ("", "RESOURCESTOP"):
            return "failure"  # the cluster manager did not say why; what was seen before does
        return records.MOVING_FACTORS.get(factor)

    # --- what became of a call

    def on_command_ended(self, node: str, fact: f.CommandEnded) -> None:
        ticket = self.own_ticket(node, fact.ticket)
        command = next((c for c in ticket.commands if (c.n, c.service) == (fact.n, fact.service)), None) if ticket else None
        if ticket is None or command is None or fact.service not in self.state.services or self._ended_before(fact):
            return
        if not self.is_current(ticket):
            self.complete_record(ticket)
        elif ticket.script == "stop":
            self._stop_command_ended(ticket, fact)
        elif fact.result == "fail":
            self._start_failed(ticket, fact.service, f"{fact.verb} of {fact.service} failed")
        elif fact.result == "lost":
            self.fire_service(fact.service, "start_lost", ticket=ticket)

    def own_ticket(self, node: str, name: str) -> TicketStatus | None:
        """A ticket of this node: no node has a say in another's."""
        ticket = self.state.tickets.get(name)
        return ticket if ticket is not None and ticket.node == node else None

    def _ended_before(self, fact: f.CommandEnded) -> bool:
        known = self.before.tickets[fact.ticket].commands
        return any(c.n == fact.n and c.result in ("ok", "fail") for c in known)

    def _stop_command_ended(self, ticket: TicketStatus, fact: f.CommandEnded) -> None:
        if fact.result == "lost":
            self.fire_service(fact.service, "stop_lost", ticket=ticket)
        elif ticket.owner == "dcsup" and ticket.code is None:
            self.turn(fact.ticket, fact.n + 1)

    def _start_failed(self, ticket: TicketStatus, failed: str, reason: str) -> None:
        moved = self.fire_service(failed, "start_failed", ticket=ticket).moved
        for name in self._unverified():
            self.fire_service(name, "start_gave_up", ticket=ticket)
        if moved:
            self._end_start(ticket, reason)

    def _unverified(self) -> list[str]:
        """What the present start has still to bring up."""
        return [name for name, s in self.state.services.items() if s.state in ("starting", "recovering") and not s.verified]

    def _end_start(self, ticket: TicketStatus, reason: str) -> None:
        self.clear_deadlines(f"start:{ticket.ticket}")
        self.fire_failover("start_failed", reason=reason)

    def on_script_ended(self, node: str, fact: f.ScriptEnded) -> None:
        ticket = self.own_ticket(node, fact.ticket)
        if ticket is None or ticket.script != fact.script or self.before.tickets[fact.ticket].code is not None:
            return
        if not self.is_current(ticket):
            self.complete_record(ticket)
        elif fact.script == "stop":
            if fact.code == 0:
                self.stopped(ticket)
        elif fact.code == 0:
            self._came_up(ticket)
        else:
            moved = [self.fire_service(name, "start_gave_up", ticket=ticket).moved for name in self._unverified()]
            if any(moved):
                self._end_start(ticket, f"the start script returned {fact.code}")

    def _came_up(self, ticket: TicketStatus) -> None:
        """The script saw every service that it lists verified; for another one only its own polls speak."""
        listed = {command.service for command in ticket.commands}
        for name in self._unverified():
            poll = self.state.services[name].polls.get(ticket.node)
            if name in listed or (poll is not None and poll.verified and poll.at_ms >= ticket.called_ms):
                self.verified(name, ticket.node)

    def stopped(self, ticket: TicketStatus) -> None:
        self.clear_deadlines(f"stop:{ticket.ticket}")
        for name in self.state.services:
            self.fire_service(name, "stop_ended")
        changes: dict[str, Any] = {}
        if all(service.state == "stopped" for service in self.state.services.values()):
            changes = {"active": None, "nodes": {ticket.node: {"role": "standby"}}}
        self.decide("StopEnded", None, node=ticket.node, data={"ticket": ticket.ticket}, changes=changes)
        self.fire_failover("stop_ended", ticket=ticket.ticket)

    def complete_record(self, ticket: TicketStatus) -> None:
        """A late fact of an older stop completes the record of its failover and moves no state."""
        if ticket.script != "stop":
            return
        for present in reversed(self.known_failovers()):
            start = present.points.get("start_called")
            if present.node_from != ticket.node or start is None or not start - 3_600_000 < ticket.called_ms <= start:
                continue
            self.amend(present, lambda record: records.note_stop_points(self, record, ticket), ticket.node)
            return

    # --- a service is up

    def verified(self, name: str, node: str, ticket_name: str | None = None) -> None:
        """`dcstatus` is 0 there, as often as the site asks (G20)."""
        call = self.current_call()
        service = self.state.services[name]
        is_nowhere = service.state in ("stopped", "failing-over", "failed") and self._adopts(node, call)
        if is_nowhere or self._is_found_elsewhere(name, node, call):
            self._adopt(name, node)
            return
        start = call if call is not None and call.script == "start" and call.node == node and call.code is None else None
        here = (
            node == service.node
            and service.state in ("starting", "recovering", "running")
            and (start is None or ticket_name == start.ticket)
        )  # fmt: skip
        owed = here and name in self.state.schedules and self.state.schedules[name].owed
        if here and not service.verified:
            self._note_verified(name)
        self.fire_service(name, "verified", [*(["here"] if here else []), *(["owing"] if owed else [])])
        if here:
            self.after_verified()

    def _note_verified(self, name: str) -> None:
        """Not before its start, though its node's clock may have been set back since."""
        self.decide(
            "ServiceVerified", "G20", service=name, node=self.state.services[name].node,
            changes={"services": {name: {"verified": True, "verified_ms": max(self.at_ms, self.state.term_ms)}}},
        )  # fmt: skip

    def _adopts(self, node: str, call: TicketStatus | None) -> bool:
        """Whether a service that nobody asked us for is the group's: on the node where the manager, or we, last had the group.

        Not while a script is at it: what runs before its stop has ended, or before its own start, says nothing.
        """
        if self._is_at_it(node, call):
            return False
        if self.state.view is not None and self.state.view.current is not None:
            return self.state.view.current == node
        return self.state.active in (None, node)

    def _is_found_elsewhere(self, name: str, node: str, call: TicketStatus | None) -> bool:
        """Whether what we know of on one node runs on another one, where nobody told us of a start, and no longer on the first."""
        service = self.state.services[name]
        known = self.state.nodes.get(service.node or "")
        if service.node in (None, node) or known is None or service.state not in SERVED or self.settings.mode == "observe":
            return False
        poll, view = service.polls.get(service.node or ""), self.state.view
        is_gone = not known.present or (poll is not None and poll.status == "unhealthy")
        is_at_it = self._is_at_it(node, call) or self._is_at_it(service.node or "", call)
        return is_gone and (view is None or view.current == node) and not is_at_it

    def _found_elsewhere(self, node: str) -> None:
        """The manager brought the group up there by a start that told nothing: what was served before is not served any more."""
        served = (service.node for service in self.state.services.values() if service.state in SERVED and service.node is not None)
        others = [name for name in dict.fromkeys(served) if name != node]
        if not others:
            return
        self.freeze_baseline()
        self.fire_failover("manager_acted", ["elsewhere", "found"], trigger="poll", kind="failure", node=node, by_operator=False)
        for name in others:
            self.take_away(name)

    def adopt_what_runs(self) -> None:
        """Where the manager says that the group is, what was seen verified and is no news any more serves, whoever brought it up.

        For whenever the view has changed, what is known of the other nodes, or a call has no time left. A view is told only when it
        changes, so an old one still holds; a poll must not be from before the last call on its node.
        """
        view = self.state.view
        if view is not None and view.group_state != "online":
            return
        for node in [name for name, one in self.state.nodes.items() if one.present and (view is None or view.current == name)]:
            for name, service in self.state.services.items():
                poll = service.polls.get(node)
                is_known = service.verified and service.node == node
                if poll is not None and poll.verified and poll.at_ms > self._called_ms(node) and not is_known:
                    self.verified(name, node)

    def _called_ms(self, node: str) -> float:
        """When a script was last called there."""
        tickets = (self.state.tickets.get(name or "") for name in (self.state.start_ticket, self.state.stop_ticket))
        return max((one.called_ms for one in tickets if one is not None and one.node == node), default=0.0)

    def _is_at_it(self, node: str, call: TicketStatus | None) -> bool:
        """Whether a script is under way there and has time left."""
        return call is not None and call.code is None and call.node == node and self._has_time(call)

    def _has_time(self, call: TicketStatus) -> bool:
        limits = self.settings.start if call.script == "start" else self.settings.stop
        return self.now_ms - call.called_ms < 1000 * limits.deadline

    def _adopt(self, name: str, node: str) -> None:
        begins = self.state.active != node or self.state.services[name].node != node or self._is_coming_back()
        if begins:
            self._found_elsewhere(node)
            self.begin_term(node, None)
        self._note_verified(name)
        owed = name in self.state.schedules and self.state.schedules[name].owed
        how = "adopt" if not owed else "adopt_owing" if self.state.failover is not None else "adopt_judging"
        self.fire_service(name, "verified", [how])
        self.after_verified()
        if begins:
            self.adopt_what_runs()  # the others, whose polls there came before and are no news any more

    def _is_coming_back(self) -> bool:
        """Whether the group was taken from the node that it is on again, of which this is the first sign: a start whose hook told nothing.

        What ran before the first symptom must come back then as after any other start (I4).
        """
        served = any(service.state in SERVED for service in self.state.services.values())
        return not served and any(status.symptom_ms is not None and not status.owed for status in self.state.schedules.values())

    def _unstarted(self) -> list[str]:
        """What is not verified yet, of all that takes part in the group's present start: what its call lists and what was not stopped.

        A start that told nothing is the whole group's, also of what was stopped before: no failover is over while a part of the group is
        not up (DESIGN.md, phase verify).
        """
        call = self.state.tickets.get(self.state.start_ticket or "")
        is_told = call is not None and call.term == self.state.term
        listed = {command.service for command in call.commands} if call is not None and is_told else set(self.state.services)
        return [name for name, s in self.state.services.items() if not s.verified and (name in listed or s.state != "stopped")]

    def after_verified(self) -> None:
        """The next command's turn, or all is up."""
        call, waiting = self.current_call(), self._unverified()
        if call is not None and call.script == "start" and call.owner == "dcsup" and call.code is None:
            command = next((c for c in call.commands if c.service in waiting), None)
            if command is not None and command.is_untouched:
                self.turn(call.ticket, command.n)
        if not self._unstarted():
            self.clear_deadlines(f"start:{self.state.start_ticket}")
            self.fire_failover("all_verified")
            if self.settings.schedules.probe == "none":
                self.judge_served()
            self.end_if_all_judged()
