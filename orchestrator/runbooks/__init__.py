"""Procedures that lead a person: installing, registering, uninstalling (G25-G40), and a failover drill with a report.

A runbook is data: `plans.py` makes an ordered list of steps from a cluster's settings, and nothing else. What a step says is in
`texts.en.toml` and `texts.ja.toml` (`wording.py`), whether it holds is looked up by `verifying.py`, how far somebody came is kept in a file
and told to the cluster's log (`progress.py`, `handing.py`), and what goes onto paper is `paper.py` and `report.py`. The terminal is
orchestrator/cli/runbook.py.
"""
