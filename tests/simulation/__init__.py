"""The simulation itself, and the real cores in it."""
