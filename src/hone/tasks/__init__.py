"""The tasks, one file each: `TASK` in the module of the name that the schema lists (`config.sections.method.TASKS`)."""

from importlib import import_module
from typing import TYPE_CHECKING

from hone.config.checks import refuse_unknown_task
from hone.config.schema import Config

if TYPE_CHECKING:
    from hone.tasks.task import Task


def task_of(config: Config) -> "Task":
    """The bundled task that a config names; only this one's module is imported.

    Raises:
        HoneError: there is none of that name.
    """
    refuse_unknown_task(config)
    task: Task = import_module(f"hone.tasks.{config.method.task}").TASK
    return task


def chosen(config: Config, task: "Task | None") -> "tuple[Config, Task]":
    """The task to work with, the caller's own if there is one, and a config that names it."""
    if task is None:
        return config, task_of(config)
    return config.changed({"task": task.name}), task
