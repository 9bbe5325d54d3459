"""ipyparallel: its clients and engines, unmodified, on the tree."""
