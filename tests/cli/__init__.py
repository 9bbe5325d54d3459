"""Tests of what is written after `hiersched`, and what it shows."""
