"""Several processes against one: the same training, whatever their number, and what it costs? On the CPU.

    python benchmarks/processes.py                        # a table: each kind of training on 2, 3 and 4 processes
    python benchmarks/processes.py --only flat,lora       # some kinds
    python benchmarks/processes.py --kills 20             # kill -9 of a random process at random moments, max_restarts
    python benchmarks/processes.py --hosts                # two network namespaces: a link that is cut, a host that dies
    python benchmarks/processes.py --elastic              # nnodes=1:4: a machine leaves, one joins
    python benchmarks/processes.py --cost                 # bytes sent in a step, one process and two, checkpoints

All but the last with tiny models in float32.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from several.cost import costs, train_timed
from several.equal import table
from several.hosts import elastic, hosts
from several.kills import kills
from several.world import KINDS, train_here, write_world


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--timed", type=Path, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--only", default=",".join(KINDS), help="kinds, separated by commas")
    parser.add_argument("--worlds", default="2,3,4", help="numbers of processes")
    parser.add_argument("--kills", type=int, help="so many trials with kill -9")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the processes")
    parser.add_argument("--hosts", action="store_true", help="two network namespaces (needs root)")
    parser.add_argument("--elastic", action="store_true", help="machines that leave and join (needs root)")
    parser.add_argument("--cost", action="store_true", help="bytes, speed and checkpoints")
    parser.add_argument("--rounds", type=int, default=3, help="of one process and two in turn")
    parser.add_argument("--work", type=Path, help="a folder to work in; by default one that is deleted")
    given = parser.parse_args()
    if given.inside:
        train_here(json.loads(given.inside.read_text()))
        return
    if given.timed:
        train_timed(json.loads(given.timed[0].read_text()), given.timed[1])
        return
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that folder and namespaces go
    folder = given.work or Path(tempfile.mkdtemp(prefix="processes-"))
    try:
        if not (folder / "pairs.jsonl").is_file():
            write_world(folder)
        if given.kills:
            fine = kills(folder, given.kills, given.seed)
        elif given.hosts:
            fine = hosts(folder)
        elif given.elastic:
            fine = elastic(folder)
        elif given.cost:
            fine = costs(folder, given.rounds)
        else:
            fine = table(folder, given.only.split(","), [int(world) for world in given.worlds.split(",")])
    finally:
        if given.work is None:
            shutil.rmtree(folder, ignore_errors=True)
    raise SystemExit(0 if fine else 1)


if __name__ == "__main__":
    main()
