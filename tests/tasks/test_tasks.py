"""Of all bundled tasks: each has a module with its name."""

import pytest
from typer.testing import CliRunner

import hone
from hone.cli import app
from hone.config.sections.method import TASKS
from hone.tasks import task_of


@pytest.mark.parametrize("name", TASKS)
def test_the_task_of_a_name_has_that_name_and_a_command_that_there_is(name: str) -> None:
    task = task_of(hone.load_config({"task": name}))
    assert task.name == name
    command = task.try_it.format(run="RUN").split()[1]
    assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0
