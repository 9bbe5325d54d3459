"""A whole cluster in virtual time: the real scheduler cores under simulated engines, clients, links and faults."""
