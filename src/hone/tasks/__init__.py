"""What a task is: one file each."""
