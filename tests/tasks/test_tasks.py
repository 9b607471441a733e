"""Of all bundled tasks: each has a module with its name."""

import pytest

import hone
from hone.config.sections.method import TASKS
from hone.tasks import task_of


@pytest.mark.parametrize("name", TASKS)
def test_the_task_of_a_name_has_that_name(name: str) -> None:
    assert task_of(hone.load_config({"task": name})).name == name
