"""Paired measurements against peers: the same weights and inputs, in one run, in turn.

`python -m bench` prints the tables of docs/speed.md. Every contender has a process of its own, which it keeps; what a
process start costs is measured with new ones.
"""
