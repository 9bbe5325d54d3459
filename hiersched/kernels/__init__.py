"""Pure functions on plain arrays and bit sets: the inner loops of the core."""
