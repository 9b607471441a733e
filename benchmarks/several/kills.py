"""kill -9 of a random process at random moments."""

import random
import shutil
import time
from pathlib import Path

from several.world import at_line, hone_train, settings


def kills(folder: Path, n: int, seed: int) -> bool:
    """Kill -9 of a random one of three processes at random moments: finished by itself, with the same bytes?

    The launcher starts them again (`max_restarts`); one trial in four kills twice. Three in four moments are steps of
    the training, one is anywhere from the start of the processes on.
    """
    import psutil

    drawn, equal = random.Random(seed), 0
    config = settings(folder, "flat", "undisturbed", 3, num_train_epochs=8, nproc_per_node=3, save_steps=2)
    config |= {"save_strategy": "steps", "eval_strategy": "no"}
    began = time.monotonic()
    whole = hone_train(folder, config)
    assert whole.communicate()[0] is not None and whole.returncode == 0
    took = time.monotonic() - began
    wanted = (folder / "undisturbed" / "model.safetensors").read_bytes()
    for trial in range(n):
        run = folder / f"killed-{trial}"
        process = hone_train(folder, {**config, "output_dir": str(run)}, "max_restarts=3")
        killed = []
        lines = run / "metrics.jsonl"
        for _ in range(1 + (drawn.random() < 0.25)):
            if drawn.random() < 0.25:
                time.sleep(drawn.uniform(0.1, 0.9) * took)
            else:
                at_line(lines, drawn.randrange(1, 24), process)
            workers = psutil.Process(process.pid).children() if process.poll() is None else []
            if workers:
                number = drawn.randrange(len(workers))
                workers[number].kill()
                step = lines.read_bytes().count(b"\n") if lines.is_file() else 0
                killed.append(f"process {number} after {step} steps")
        said, _ = process.communicate(timeout=40 * took)
        weights = run / "model.safetensors"
        same = process.returncode == 0 and weights.is_file() and weights.read_bytes() == wanted
        equal += same
        print(f"{trial + 1:3} {'equal' if same else 'WRONG'}  {', '.join(killed) or 'ended before'}", flush=True)
        if not same:
            print(said[-2000:])
        shutil.rmtree(run, ignore_errors=True)
    print(f"{equal} of {n} finished by themselves with the same bytes")
    return equal == n
