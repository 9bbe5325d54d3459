"""ipyparallel's own tests, unmodified, on our side of the wire: see __main__."""
