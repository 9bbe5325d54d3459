"""Tests of how data travels."""
