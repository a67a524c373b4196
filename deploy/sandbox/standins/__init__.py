"""Honest stand-ins for what a laptop cannot have: a DataCoordinator installation, a CLUSTERPRO cluster, two machines.

Whoever wants to see a failover needs two Windows servers, a shared disk, a floating IP address and two commercial products.
This package plays those parts with nothing but real processes, real sockets, real signals and a real SQLite file, so that what
is tried here can go wrong in the ways in which the real thing goes wrong: a process dies in the middle of a line, a disk is
not there, a heartbeat stays out, a command never returns.

The cast
--------
*A node* is a folder and every process that carries its mark in the environment (``SANDBOX_NODE=<sandbox id>/<node>``; see
``processes.py``). Cutting its power means SIGSTOP and then SIGKILL for all of them. Its disk stays, as a disk does.

*The switchable disk* is one folder, ``<base>/shared``. A node has it attached while the symbolic link ``<node>/disk`` exists;
the stand-ins open shared data through that link only. Taking over from a dead node removes that node's link first, as a
reservation is preempted, and whatever still runs there notices and ends: its writes would fail.

*The floating IP address* belongs to nobody's machine but to the network: ``network.py`` is one process outside the nodes that
forwards fixed loopback ports to whichever node claimed the address last, and refuses where nobody listens there.

*DataCoordinator* (``dc_*.py``): a metadata DB server, a server and an agent, three daemons a node, each in a session of its own
like a service; and the commands ``dcserver``, ``dcagent``, ``dcstatus``, with the meaning of G4-G15 of the guide. ``dcschedules``
is not in the guide: it plays the command of its own by which a site lists its schedules. ``metastart``, ``metastop`` and ``metastatus``
play the operating system's service of the metadata DB (G33, G44).

*A DBMS* (``dbms.py``), where the sandbox is told to have one: what the agent connects to, *local*, that is in the failover group with its
data on the switchable disk (G2, G24), or *remote*, on a machine outside the cluster.

*CLUSTERPRO* (``clusterpro.py`` and ``clp_*.py``): one daemon a node. They know of each other by UDP heartbeats alone; a node is
dead when they stay out for the time set, never because somebody said so. One failover group with floating IP, disk,
script and resident application resources in dependency order, monitors with a ladder of recovery actions, any number of standbys that
are tried in order of the policy, the commands that scripts and operators use (``clpstat``, ``clpgrp``, ``clpcl``, ``clpmonctrl``,
``clplogcmd``, ``armsleep``, ``armbcast``), the alert extension (``clp_alerts.py``) and the RESTful API (``clp_rest.py``).

*The driver* (``cluster.py``) builds a sandbox, switches nodes on, cuts their power, and sets faults. It does nothing that a
person with two hands in a machine room could not do.

Their own records
-----------------
All of them write what they did, when they did it, into ``<base>/records/*.jsonl``: one JSON object a line, appended by a single
write, with ``time.time()`` of that very moment. Whatever supervises the cluster can be judged against these records,
for the stand-ins know nothing of any supervisor: they import nothing from outside this package, and play a failover just
as well with the guide's own scripts (``../guide``).

What is not like the real thing
-------------------------------
- Nodes share one machine, so 'the same port on every node' becomes one port a node, and all clocks are one clock.
- The disk link is a convention: a process that opens ``<base>/shared`` by its own path is not stopped.
- G44 leaves open who starts and ends the metadata DB server. Here ``dcserver start|recover`` starts it when it is not up, and
  ``stop|faststop`` end it, unless the fault ``disk-held`` is set; with ``metadata_by_server`` off neither touches it.
- What a ``dcagent`` verb means beyond start and stop is open in the guide; the agent only writes down which one it was.
- While the cluster is suspended the daemons still hear each other; what they hear has no consequence. How ``clpstat`` prints a
  suspended cluster is not known: here servers and monitors are shown as ``Suspend``.
- A failing stop script makes the real product shut the OS down. Here that is recorded, and done only where the sandbox
  is told to (``shutdown_is_real``).

Start-up time matters, for scripts call these commands all the time: the commands run on ``python -I -S`` (through ``_run.py``) and
import little; a ``dcstatus`` takes about 40 ms.
"""
