"""One file per kind of process."""
