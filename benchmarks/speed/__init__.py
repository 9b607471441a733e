"""Parts of `speed.py`: the tables, the rows, what a child process does, and what is printed."""
