"""Intervals, paired tests, seed variance, comparisons."""
