"""Tests of what is written in docs/."""
