"""Every question, one after the other, and the results into docs/. This is what `make bench` runs."""

from benchmarks.broadcast import broadcast
from benchmarks.command import main
from benchmarks.hop_latency import hop_latency
from benchmarks.makespan import makespan
from benchmarks.memory import memory
from benchmarks.notebook import notebook
from benchmarks.old_clients import old_clients
from benchmarks.old_engines import old_engines
from benchmarks.publication import publish
from benchmarks.start_time import start_time
from benchmarks.stopping import stopping
from benchmarks.task_graph import task_graph
from benchmarks.task_rate import task_rate
from benchmarks.tree_scale import tree_scale

QUESTIONS = [
    hop_latency,
    broadcast,
    task_rate,
    task_graph,
    makespan,
    notebook,
    old_clients,
    old_engines,
    stopping,
    memory,
    start_time,
    tree_scale,
]

if __name__ == "__main__":
    publish(*main(QUESTIONS))
