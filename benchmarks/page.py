"""The live page's server with many runs: how long its answers take, while some of the runs grow.

python benchmarks/page.py out/demo/functions        # a finished run; copied 50 times without its weights

Each copy gets a curve of 2,000 points; five are alive and grow twice a second. Prints the first answer, the median and
the longest of the later ones, in milliseconds, and the server's memory.
"""

import argparse
import http.client
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import quote

import psutil

KEPT = ("config.resolved.yaml", "config.yaml", "env.json", "train.log", "template.json")
LOOKS = 40


def copies(run: Path, folder: Path, number: int, points: int, living: int) -> list[Path]:
    """Run folders with curves of their own; the first ones say that this process trains in them."""
    made = []
    for i in range(number):
        target = folder / f"run-{i:02}"
        (target / "eval").mkdir(parents=True)
        for name in KEPT:
            if (run / name).is_file():
                shutil.copy(run / name, target)
        for file in (run / "eval").iterdir():
            shutil.copy(file, target / "eval")
        status = {"status": "running", "stage": "training", "pid": os.getpid(), "updated": ""}
        if i >= living:
            status = {"status": "finished", "stage": "finished", "pid": 0, "updated": "", "seconds": 60.0}
        (target / "status.json").write_text(json.dumps(status))
        with (target / "metrics.jsonl").open("w") as file:
            file.writelines(line(step) for step in range(1, points + 1))
        made.append(target)
    return made


def line(step: int) -> str:
    found = {"step": step, "loss": 3 / step**0.3 + random.random() / 10, "learning_rate": 1e-4, "grad_norm": 1.0}
    return json.dumps({**found, "tokens": 1000 * step, "tokens_per_s": 500.0, "peak_memory_bytes": 10**9}) + "\n"


def grow(runs: list[Path], stop: threading.Event, first: int) -> None:
    step = first
    while not stop.wait(0.5):
        step += 1
        for run in runs:
            with (run / "metrics.jsonl").open("a") as file:
                file.write(line(step))


def asked(port: int, token: str, path: str) -> tuple[float, bytes]:
    """Milliseconds and the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    began = time.perf_counter()
    connection.request("GET", path, headers={"x-hone-token": token})
    answer = connection.getresponse()
    text = answer.read()
    taken = 1000 * (time.perf_counter() - began)
    connection.close()
    assert answer.status == 200, text
    return taken, text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--points", type=int, default=2000)
    parser.add_argument("--living", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        runs = copies(options.run, folder, options.runs, options.points, options.living)
        words = [sys.executable, "-m", "hone", "ui", str(folder), "--no-open", "--port", "0"]
        server = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        stop = threading.Event()
        growing = threading.Thread(target=grow, args=(runs[: options.living], stop, options.points))
        try:
            assert server.stderr is not None
            found = re.search(r":(\d+)/#token=(\w+)", server.stderr.readline())
            assert found, "hone ui has printed no address"
            port, token = int(found[1]), found[2]
            growing.start()
            name = quote(runs[0].name)
            paths = {
                "the table of runs": "/api/runs",
                "a run's report": f"/api/run?run={name}",
                "a whole curve": f"/api/metrics?run={name}&from=0",
                "two runs compared": f"/api/compare?a={name}&b={quote(runs[-1].name)}",
            }
            print(f"{options.runs} runs of {options.points} points, {options.living} of them growing; milliseconds")
            print("| answer | first | median | longest | kB |\n| --- | ---: | ---: | ---: | ---: |")
            for what, path in paths.items():
                first, text = asked(port, token, path)
                more = []
                for _ in range(LOOKS):
                    time.sleep(0.05)
                    more.append(asked(port, token, path)[0])
                middle = statistics.median(more)
                print(f"| {what} | {first:.0f} | {middle:.0f} | {max(more):.0f} | {len(text) / 1000:.0f} |")
            memory = psutil.Process(server.pid).memory_info().rss
            print(f"\nthe server's memory: {memory / 1e6:.0f} MB")
        finally:
            stop.set()
            growing.join()
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
