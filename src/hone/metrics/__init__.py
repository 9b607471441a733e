"""What is computed from a model's outputs on held-out items."""
