"""Trials, metrics with intervals, baselines, tables and plots."""
