"""Do the tests notice? Faults planted into the product one by one, each of which simulation or tests must catch.

`python -m tests.mutants` (or `make mutants`) copies the project for each fault of `faults.py`, plants it, and runs the checks that the
fault names, the simulation first: it prints which check caught it, and after how many seeds. A fault that nothing catches is a promise
that nobody checks: exit code 1.
"""
