"""The three tables: service, node, failover. Rule numbers are stable and have gaps; a number is never given to another rule.

DESIGN.md, "State machines", says what each state guarantees. G rules are GUIDE.md's, N1-N9 NODE.md's, I1-I8 the invariants'. A first
symptom is only a suspicion: it opens a failover, and moves no service and no node until the cluster manager acts.
"""

from __future__ import annotations

from statemachines.configuration import ServiceSettings
from statemachines.machine import Row, StateMachine, Table
from statemachines.states import FAILOVER_STATES, NODE_STATES, SERVICE_STATES

_S = SERVICE_STATES


def _but(*left_out: str) -> tuple[str, ...]:
    return tuple(state for state in SERVICE_STATES if state not in left_out)


def _nodes_but(*left_out: str) -> tuple[str, ...]:
    return tuple(state for state in NODE_STATES if state not in left_out)


SERVICE = Table(
    name="service",
    states=SERVICE_STATES,
    initial="stopped",
    final=(),
    rows=(
        # --- the manager asks for a start
        Row("S100", ("stopped", "starting", "running", "stopping", "failed"), "start_called", "recovering",
            "The group comes up after a failover: it counts as served only when verified and its schedules are judged (G9, G13).",
            guard="failover", phase="start"),
        Row("S102", ("stopped", "running", "stopping", "failed"), "start_called", "starting",
            "A normal start was asked for on this node (G8, G12); what we took for running is taken for it only after its own check.",
            phase="start"),
        Row("S104", ("failing-over",), "start_called", "recovering", "The start that the failover was waiting for.", phase="start"),
        Row("S106", ("starting", "recovering"), "start_called", None, "A new start call takes the place of the one before it (N6).",
            phase="start"),
        # --- the turn of a command of a live ticket
        Row("S200", ("starting", "recovering", "stopping", "failing-over"), "turn_came", None,
            "Under pause no command is issued; the script goes on with the guide's plain sequence at once.",
            guard="paused", action="give_way"),
        Row("S202", ("starting", "recovering", "stopping", "failing-over"), "turn_came", None,
            "In mode observe dcsup runs no verb, ever; a script that asks all the same goes on by itself.",
            guard="observing", action="give_way"),
        Row("S203", ("starting", "recovering"), "turn_came", None,
            "The agent of this machine is not verified, and no worker starts the server before it (G23); the script goes on by itself.",
            guard="agent_missing", action="give_way"),
        Row("S204", ("starting", "recovering", "stopping", "failing-over"), "turn_came", None,
            "The ticket lives and lists this command, and those before it are done (G23): a worker is asked to run it.",
            guard="live", action="issue_command"),
        Row("S206", ("starting", "recovering", "stopping", "failing-over"), "turn_came", None,
            "The call is over, or the script has taken it: its commands are not ours to issue.", answer="reject"),
        Row("S208", ("stopped", "running", "failed"), "turn_came", None,
            "Nothing is asked for in this state: a service that is verified, stopped or given up gets no command.", answer="reject"),
        # --- how a start command ended
        Row("S300", ("starting", "recovering"), "start_failed", "failed",
            "A start command failed; a known failure is never repeated, and the script reports the group as not up.",
            action="refuse_start", phase="start"),
        Row("S302", _but("starting", "recovering"), "start_failed", None, "A failure of a start that is over.", answer="ignore"),
        Row("S310", ("starting", "recovering"), "start_lost", None,
            "Nobody knows how the command ended and its process is gone: the script looks and goes on by itself (I7).",
            action="give_way", phase="start"),
        Row("S312", _but("starting", "recovering"), "start_lost", None, "A loss in a start that is over.", answer="ignore"),
        Row("S320", ("starting", "recovering"), "start_gave_up", "failed",
            "The start script returned non-zero: the manager knows that the group is not up here.", phase="start"),
        Row("S322", _but("starting", "recovering"), "start_gave_up", None, "The service is not part of a start any more.", answer="ignore"),
        Row("S330", ("stopping", "failing-over"), "stop_lost", None,
            "Nobody knows how the stop command ended and its process is gone: the script looks and goes on by itself (I7).",
            action="give_way", phase="stop"),
        Row("S332", _but("stopping", "failing-over"), "stop_lost", None, "A loss in a stop that is over.", answer="ignore"),
        # --- dcstatus says 0
        Row("S398", ("starting",), "verified", "running",
            "It serves again after a stop; that its schedules are judged holds nothing up (G4-G6).", guard="owing",
            action="await_schedules", phase="verify"),
        Row("S400", ("starting",), "verified", "running", "dcstatus answered 0 after the start, as often as the site asks (G20).",
            guard="here", phase="verify"),
        Row("S402", ("recovering",), "verified", None,
            "It serves again; whether its schedules came back is still to be judged (G4-G7, I4).", guard="owing",
            action="await_schedules", phase="verify"),
        Row("S404", ("recovering",), "verified", "running", "It serves again and has no schedules to judge.", guard="here", phase="verify"),
        Row("S406", ("stopped", "failing-over", "failed"), "verified", "recovering",
            "It was brought up by somebody else on the group's node after a failover: taken over as it is, schedules to be judged.",
            guard="adopt_owing", action="await_schedules", phase="verify"),
        Row("S407", ("stopped", "failing-over", "failed"), "verified", "running",
            "It was brought up by somebody else after a plain stop: it serves, and its schedules are judged beside (G4-G6).",
            guard="adopt_judging", action="await_schedules", phase="verify"),
        Row("S408", ("stopped", "failing-over", "failed"), "verified", "running",
            "It was brought up by somebody else on the group's node: dcsup takes over what happened and fights nothing.",
            guard="adopt", phase="verify"),
        Row("S410", ("stopped", "starting", "failing-over", "recovering", "failed"), "verified", None,
            "A good poll from a node that was not asked to serve: evidence, no change.", answer="ignore"),
        Row("S412", ("running", "stopping"), "verified", None, "Nothing new, or a stop is in flight.", answer="ignore"),
        Row("S420", ("recovering",), "schedules_judged", "running", "Every schedule that was to come back is accounted for (I4).",
            guard="served", phase="resume"),
        Row("S422", _S, "schedules_judged", None, "The judgement changes nothing for a service that is not waiting for it.",
            answer="ignore"),
        # --- symptoms
        Row("S500", ("running", "recovering"), "unhealthy", None,
            "dcstatus is not 0 any more (G22): a symptom. The state stays until the manager acts.", guard="served", action="suspect",
            phase="detect"),
        Row("S502", _S, "unhealthy", None, "Bad polls are to be expected in this state.", answer="ignore"),
        Row("S510", ("starting", "running", "recovering", "failing-over", "stopping"), "seen_offline", "stopped",
            "The manager says that the group is offline everywhere, and no script of ours is under way (mode observe).",
            guard="observing"),
        Row("S512", _S, "seen_offline", None, "Our own records of the scripts say more than the manager's view.", answer="ignore"),
        # --- the manager asks for a stop
        Row("S600", ("stopped", "starting", "running", "recovering", "stopping", "failed"), "stop_called", "failing-over",
            "The group is being taken away (CLP_FACTOR, or a stop after a symptom): served nowhere until verified again.",
            guard="moving", phase="stop"),
        Row("S602", ("stopped", "starting", "running", "recovering", "failed"), "stop_called", "stopping",
            "A stop with no failover ahead (G10, G11, G14, G15).", phase="stop"),
        Row("S604", ("stopping", "failing-over"), "stop_called", None, "A stop is under way already; the new call takes its place (N6).",
            phase="stop"),
        Row("S620", ("stopping",), "stop_ended", "stopped", "The stop script closed its ticket: the service is not running here.",
            phase="stop"),
        Row("S621", ("failed",), "stop_ended", "stopped", "The stop ended after its deadline: late, but it is not running here any more.",
            phase="stop"),
        Row("S622", ("failing-over",), "stop_ended", None, "Stopped here; the failover waits for its start.", phase="stop"),
        Row("S624", _but("stopping", "failing-over", "failed"), "stop_ended", None, "The end of a stop that is over.", answer="ignore"),
        Row("S640", ("starting", "running", "recovering"), "taken_away", "failing-over",
            "The manager brings the group up elsewhere: what was served here is not served any more.", phase="takeover"),
        Row("S642", _but("starting", "running", "recovering"), "taken_away", None, "It was not served here.", answer="ignore"),
        # --- deadlines (I3)
        Row("S700", ("starting", "recovering"), "start_deadline", "failed",
            "The start was not verified before its deadline: the script reports the group as not up.", guard="!served",
            action="refuse_start", phase="start"),
        Row("S702", _S, "start_deadline", None, "The start is not waiting any more.", answer="ignore"),
        Row("S710", ("stopping",), "stop_deadline", "failed", "The stop did not end before its deadline.", action="refuse_stop",
            phase="stop"),
        Row("S712", ("failing-over",), "stop_deadline", None, "The stop did not end before its deadline; the failover has its own.",
            action="refuse_stop", phase="stop"),
        Row("S714", _but("stopping", "failing-over"), "stop_deadline", None, "The stop is not waiting any more.", answer="ignore"),
        Row("S720", ("failing-over",), "takeover_deadline", "failed", "The group was taken away and not started anywhere in time.",
            phase="takeover"),
        Row("S722", _but("failing-over"), "takeover_deadline", None, "It is not being taken over any more.", answer="ignore"),
    ),
)  # fmt: skip

NODE = Table(
    name="node",
    states=NODE_STATES,
    initial="stopped",
    final=(),
    rows=(
        Row("N100", ("stopped",), "joined", "recovering", "A node that was lost is back: on probation (G16).", guard="was_lost",
            action="begin_probation"),
        Row("N102", ("stopped", "failed"), "joined", "starting", "Its worker reports for the first time, or after it was told to leave.",
            action="begin_probation"),
        Row("N104", ("failing-over",), "joined", "recovering", "The lost node is back before the failover from it has ended.",
            action="begin_probation"),
        Row("N106", ("starting", "running", "recovering"), "joined", None, "Only its worker was started again.", answer="ignore"),
        Row("N110", ("starting",), "polled", "running", "Its watch sees the services: it is verified."),
        Row("N112", _nodes_but("starting"), "polled", None, "Polls tell of services, not of this.", answer="ignore"),
        Row("N120", ("starting", "recovering"), "probation_passed", "running", "It stayed for the whole probation."),
        Row("N122", _nodes_but("starting", "recovering"), "probation_passed", None, "The probation is over already.", answer="ignore"),
        Row("N130", ("stopped", "starting"), "recover_called", "recovering",
            "The manager says that this node returned to the cluster; nothing is started there (G16).", action="begin_probation"),
        Row("N132", _nodes_but("stopped", "starting"), "recover_called", None, "We know it already.", answer="ignore"),
        Row("N200", ("running", "recovering", "starting"), "lost", None,
            "No sign of life of the node that serves: a symptom. Our own worker may have gone silent; the manager decides.",
            guard="active", action="suspect", phase="detect"),
        Row("N202", ("starting", "running", "recovering"), "lost", "stopped", "No sign of life."),
        Row("N204", ("stopped", "failing-over", "failed"), "lost", None, "Nothing was expected of it.", answer="ignore"),
        Row("N210", ("starting", "running", "recovering", "failing-over"), "left", "stopped", "Its worker was told to leave."),
        Row("N212", ("stopped", "failed"), "left", None, "It was not there.", answer="ignore"),
        Row("N220", ("stopped",), "returned", "recovering", "Signs of life again from a node that never went down: on probation.",
            action="begin_probation"),
        Row("N222", _nodes_but("stopped"), "returned", None, "It was cut off for a moment only.", answer="ignore"),
        Row("N300", ("starting", "running", "recovering"), "evacuated", "failing-over", "The group is being taken away from it.",
            phase="stop"),
        Row("N302", _nodes_but("starting", "running", "recovering"), "evacuated", None, "It was not in service.", answer="ignore"),
        Row("N310", ("starting", "running", "recovering"), "taken_away", "failing-over",
            "The manager brings its group up elsewhere: it is lost, or about to be.", phase="takeover"),
        Row("N312", _nodes_but("starting", "running", "recovering"), "taken_away", None, "It was not in service.", answer="ignore"),
        Row("N320", ("failing-over",), "episode_ended", "running", "The failover is over and the node is there: a standby.",
            guard="present"),
        Row("N322", ("failing-over",), "episode_ended", "stopped", "The failover is over and the node shows no sign of life."),
        Row("N323", ("starting", "running", "recovering"), "episode_ended", "stopped",
            "Nothing was moved from it, and it still shows no sign of life.", guard="!present"),
        Row("N324", _nodes_but("failing-over"), "episode_ended", None, "It was not part of it.", answer="ignore"),
        Row("N330", ("failing-over",), "activated", "running", "The group comes up on it again."),
        Row("N331", ("failed",), "activated", "running", "Its disk is there again: the group comes up on it."),
        Row("N332", _nodes_but("failing-over", "failed"), "activated", None, "Being active is a role, not a state.", answer="ignore"),
        Row("N400", _nodes_but("failed"), "disk_failed", "failed", "The switchable partition could not be attached there (G18)."),
        Row("N402", ("failed",), "disk_failed", None, "Still failed.", answer="ignore"),
    ),
)  # fmt: skip

_FAILOVER = ("none", *FAILOVER_STATES)


def _fails_but(*left_out: str) -> tuple[str, ...]:
    return tuple(state for state in _FAILOVER if state not in left_out)


FAILOVER = Table(
    name="failover",
    states=_FAILOVER,
    initial="none",
    final=("ended",),
    rows=(
        Row("F100", ("none",), "symptom", "suspected", "A first symptom: the clock of `detect` begins, nothing else moves.",
            action="open", phase="detect"),
        Row("F102", ("resuming",), "symptom", "ended", "A new symptom before every schedule was judged: the next failover begins.",
            action="supersede", phase="resume"),
        Row("F104", _fails_but("none", "resuming"), "symptom", None, "Only the first symptom counts.", answer="ignore"),
        Row("F110", ("suspected",), "cleared", "ended", "The symptom went away and nothing was moved.", action="clear", phase="detect"),
        Row("F112", _fails_but("suspected"), "cleared", None, "The manager has acted already.", answer="ignore"),
        Row("F120", ("suspected",), "suspicion_deadline", "ended", "The manager did not act on the symptom.", action="clear",
            phase="detect"),
        Row("F122", _fails_but("suspected"), "suspicion_deadline", None, "The manager has acted already.", answer="ignore"),
        Row("F200", ("none",), "stop_called", "acting", "The manager takes the group away: its stop hook is the first that is seen.",
            guard="moving", action="open_acting", phase="stop"),
        Row("F202", ("suspected",), "stop_called", "acting", "The manager acts on the symptom: detect ends at the stop hook.",
            guard="moving", action="act", phase="stop"),
        Row("F204", ("suspected",), "stop_called", "ended", "The group was stopped by somebody's will; nothing is moved.",
            action="clear", phase="detect"),
        Row("F206", ("acting",), "stop_called", None, "If a stop hook comes, detect ends with it and not with the alert before it.",
            action="act", phase="stop"),
        Row("F208", ("starting",), "stop_called", "acting",
            "The start was not verified and the group is taken away again: the same incident, whose kind is the last action.",
            guard="moving", action="act_again", phase="stop"),
        Row("F210", ("starting", "resuming"), "stop_called", "ended", "The group was stopped or moved on before the failover was complete.",
            action="supersede", phase="stop"),
        Row("F212", ("none", "ended"), "stop_called", None, "A stop with no failover ahead.", answer="ignore"),
        Row("F220", ("suspected", "none"), "manager_acted", "acting", "The manager says that it moves the group (alert, or its own view).",
            action="act_by_view", phase="takeover"),
        Row("F221", ("resuming",), "manager_acted", "ended",
            "The manager has the group elsewhere before every schedule was judged: the next failover begins.", guard="elsewhere",
            action="supersede", phase="takeover"),
        Row("F223", ("starting",), "manager_acted", "acting",
            "It runs elsewhere than where its start was seen: brought up there by a start that told nothing.", guard="found",
            action="act_by_view", phase="takeover"),
        Row("F222", _fails_but("suspected", "none"), "manager_acted", None, "Known already.", answer="ignore"),
        Row("F230", ("acting",), "stop_ended", None, "The last stop command returned: the manager's own time begins.",
            action="note_stop", phase="stop"),
        Row("F232", _fails_but("acting"), "stop_ended", None, "No failover waits for it.", answer="ignore"),
        Row("F300", ("none",), "start_called", "starting",
            "The group comes up elsewhere, and nobody had said a word: the start hook is symptom and act in one.",
            guard="failover", action="open_starting", phase="takeover"),
        Row("F302", ("suspected", "acting"), "start_called", "starting", "The group comes up: takeover ends at the start hook.",
            action="begin_start", phase="takeover"),
        Row("F304", ("starting",), "start_called", None, "It is started again: the last start counts.", action="begin_start",
            phase="takeover"),
        Row("F306", ("resuming",), "start_called", "ended", "It is started anew before every schedule was judged.", action="supersede",
            phase="resume"),
        Row("F308", ("none", "ended"), "start_called", None, "A normal start.", answer="ignore"),
        Row("F400", ("starting", "acting"), "all_verified", "resuming", "dcstatus is 0 for every service (G20).", action="note_verified",
            phase="verify"),
        Row("F402", _fails_but("starting", "acting"), "all_verified", None, "No failover waits for it.", answer="ignore"),
        Row("F410", ("resuming",), "all_judged", "ended", "Every schedule is judged: the failover is complete (I4).", action="complete",
            phase="resume"),
        Row("F412", _fails_but("resuming"), "all_judged", None, "No failover waits for it.", answer="ignore"),
        Row("F420", ("starting",), "start_failed", "ended", "The start on the new node failed.", action="fail", phase="start"),
        Row("F422", _fails_but("starting"), "start_failed", None, "No failover waits for it.", answer="ignore"),
        Row("F430", ("acting",), "takeover_deadline", "ended", "The group was not started anywhere in time.", action="fail",
            phase="takeover"),
        Row("F432", _fails_but("acting"), "takeover_deadline", None, "It was started.", answer="ignore"),
    ),
)  # fmt: skip

TABLES: dict[str, Table] = {table.name: table for table in (SERVICE, NODE, FAILOVER)}
MACHINES: dict[str, StateMachine] = {name: StateMachine(table) for name, table in TABLES.items()}

VERBS: dict[tuple[str, str, str], str] = {
    ("server", "start", "START"): "recover",  # G8
    ("server", "start", "FAILOVER"): "recover",  # G9
    ("server", "stop", "START"): "faststop",  # G10
    ("server", "stop", "FAILOVER"): "faststop",  # G11
    ("agent", "start", "START"): "start",  # G12
    ("agent", "start", "FAILOVER"): "recover",  # G13
    ("agent", "stop", "START"): "stop",  # G14
    ("agent", "stop", "FAILOVER"): "faststop",  # G15
    ("command", "start", "START"): "start",  # G24: at the same place as an agent's
    ("command", "start", "FAILOVER"): "start",
    ("command", "stop", "START"): "stop",
    ("command", "stop", "FAILOVER"): "stop",
}
"""What the guide instructs: (kind, script, CLP_EVENT) -> verb."""


def verb_of(service: ServiceSettings, script: str, event: str) -> str:
    """The verb that the scripts put into a ticket for this service: the site's own choice, or the guide's (G8-G15)."""
    chosen = service.verbs
    site = {
        ("start", "START"): chosen.start, ("start", "FAILOVER"): chosen.start_after_failover,
        ("stop", "START"): chosen.stop, ("stop", "FAILOVER"): chosen.stop_after_failover,
    }[script, event]  # fmt: skip
    return site or VERBS[service.kind, script, event]


ALLOWED_VERBS: dict[str, frozenset[str]] = {"start": frozenset({"start", "recover"}), "stop": frozenset({"stop", "faststop"})}
"""What the guide allows at all."""


def allows(service: ServiceSettings, script: str, verb: str) -> bool:
    """Whether a ticket may ask for this verb: one that the guide allows; a service of kind `command` knows start and stop only."""
    return verb == script if service.kind == "command" else verb in ALLOWED_VERBS[script]
