"""Bad input, made by chance: no crash, nothing lost, reasons given.

`test_*.py` use hypothesis, which shrinks what it finds. Where a reader parses text that somebody else's program wrote (CLUSTERPRO's
print-outs and its clp.conf, fact files, dcsup.toml, inbox entries), `guided.py` lets a coverage-guided fuzzer look for the branch that
nobody thought of: `python -m tests.fuzz.guided clpstat --runs 1000000`.
"""
