"""Deterministic simulation: the real code in one process, with virtual time, a disk in memory, and every fault by a seed's dice.

Real: the orchestrator's loop, intake, commit, lease and history (on the store in memory); the machines; on the nodes the hooks, launcher,
jobs, tickets, journal, reaper, outbox, forwarder and watch. Modelled: time, disks, processes, Redis and its lines, the scripts' plain
sequence (checked against the rendered scripts), CLUSTERPRO, DataCoordinator and people.

    engine.py   virtual time: processes are greenlets, machines can be paused, cut off, killed
    disk.py     a disk in memory under the names of real paths; full, read-only, failing, losing what was not flushed
"""
