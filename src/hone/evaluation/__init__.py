"""Evaluation: base and tuned on held-out items, programming tasks and benchmarks; memorization; comparison."""
