"""Small worlds, explored to the end: every interleaving of the node protocol, and a crash at each write.

replay.py     real code, run one step at a time from any state of a disk
installing.py the real node code, put onto a disk in memory
script.py     what a start or stop script does, operation by operation, as in deploy/clusterpro/linux
protocol.py   who acts on one node, and what may befall them; `explore` visits every state (NODE.md)
test_protocol.py, test_crashes.py
"""
