"""How fast hiersched is, one file per question, each against its peers in the same run.

`python -m benchmarks.NAME [--quick] [--json FILE]` answers one question, `python -m benchmarks` all of them.
README.md beside this file says how to read the figures.
"""
