"""What a group shares: every result, in the order of the pieces, in each process; and one mistake."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hone.processes import everybodys, shared

PROGRAM = Path(__file__).with_name("sharing.py")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="torchrun's store is of other systems")


@pytest.mark.slow
def test_three_share_what_each_computes_a_part_of() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    environ = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "3", "OMP_NUM_THREADS": "1"}
    group = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM)], env={**environ, "RANK": str(number)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(3)
    ]  # fmt: skip
    said = [process.communicate(timeout=120) for process in group]
    assert [process.returncode for process in group] == [1, 1, 1], said
    found = json.loads(said[0][0])
    assert found == {
        "shared": [[i % 3, i * i] for i in range(7)],
        "few": [[0, 0]],
        "alone": [[0, 0], [0, 1], [0, 4]],
        "large": [0, 0, 10 << 20],
        "mistake": "process 1: no sandbox\n  make one",
        "after": [True],
    }
    assert [error for _, error in said] == ["", "process 1: no sandbox\n  make one\n", ""], "who failed says it, alone"


def test_who_is_alone_computes_everything() -> None:
    assert shared([1, 2, 3], lambda mine: [2 * one for one in mine]) == [2, 4, 6]
    assert everybodys(lambda: "mine") == ["mine"]
