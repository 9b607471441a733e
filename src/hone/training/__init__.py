"""Training: the story of a run, the engine, and what happens beside the steps."""
