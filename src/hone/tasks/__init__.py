"""The tasks, one file each, with a line each in `TASKS`."""

import difflib

from hone.config.schema import Config
from hone.errors import HoneError
from hone.tasks import causal, classification, seq2seq
from hone.tasks.task import Task

TASKS: dict[str, Task] = {task.name: task for task in (causal.TASK, classification.TASK, seq2seq.TASK)}


def chosen(config: Config, task: Task | None) -> tuple[Config, Task]:
    """The task to work with, the caller's own if there is one, and a config that names it."""
    if task is None:
        return config, task_of(config)
    return config.model_copy(update={"method": config.method.model_copy(update={"task": task.name})}), task


def task_of(config: Config) -> Task:
    """The task that a config names.

    Raises:
        HoneError: there is none of that name.
    """
    name = config.method.task
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, n=1)
        raise HoneError(
            f"unknown task '{name}'",
            where=config.where("task"),
            fix=f"did you mean '{near[0]}'?" if near else f"use {', '.join(TASKS)}; or hand your own to hone.train",
        )
    return TASKS[name]
