"""Shared by tests of teachers: the contract that every teacher must keep, and synthetic clips."""
