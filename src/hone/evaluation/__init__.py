"""Evaluation: losses of held-out items, intervals, and before beside after."""
