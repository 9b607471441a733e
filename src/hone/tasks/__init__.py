"""The tasks, one file each; `TASKS` has a line for each."""

from hone.tasks import causal, classification, seq2seq
from hone.tasks.task import Task

TASKS: dict[str, Task] = {task.name: task for task in (causal.TASK, classification.TASK, seq2seq.TASK)}
