"""Tests of what users hold, on a session that runs calls in this process."""
