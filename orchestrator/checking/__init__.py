"""Whether an installation is as the guide, CLUSTERPRO and the node protocol want it: `dcsup check`.

    evidence.py   what was gathered, as plain data: nothing here, and it is not known
    gathering.py  from a configuration and an exported CLUSTERPRO configuration to evidence
    rules.py      how a rule is written; the list of all of them
    of_*.py       the rules themselves, by what they look at
    judging.py    runs every rule over the evidence
    bound.py      how long a script may take at the worst (NODE.md)

A rule is a pure function from evidence to what it found. What was not gathered gives `unknown`, never "all is well".
"""
