"""The tests: a mirror of hiersched/, plus scenarios/ (simulated clusters) and processes/ (real ones)."""
