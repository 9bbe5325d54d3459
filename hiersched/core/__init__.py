"""Scheduling as pure state machines: events and the time in, effects out. No socket, clock, thread, file or rng."""
