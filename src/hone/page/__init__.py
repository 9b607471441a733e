"""A live page over the run folders: what is running, what it gave, and base and tuned side by side."""
