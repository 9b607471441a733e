"""The live page's server with many runs: how long its answers take, while some of the runs grow.

python benchmarks/page.py out/demo/functions        # a finished run; copied 50 times without its weights

Each copy gets a curve of 2,000 points; five are alive and grow twice a second. Prints the first answer, the median and
the longest of the later ones, in milliseconds, and the server's memory.

--minutes 30: a growing run stays open in Chromium, and its memory is read ten times. --training 5: so many trainings of
the bundled model with their page open in Chromium, in turn with as many without. Both need the extra `browser`.
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
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


@contextmanager
def page_server(folder: Path) -> "Iterator[tuple[subprocess.Popen[str], int, str]]":
    """`hone ui`: its process, port and token."""
    words = [sys.executable, "-m", "hone", "ui", str(folder), "--no-open", "--port", "0"]
    server = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        found = re.search(r":(\d+)/#token=(\w+)", server.stderr.readline())
        assert found, "hone ui has printed no address"
        yield server, int(found[1]), found[2]
    finally:
        server.terminate()
        server.wait()


@contextmanager
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser: Any, port: int, token: str, run: str) -> Any:
    """A page that shows a run."""
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{port}/#token={token}")
    page.goto(f"http://127.0.0.1:{port}/#/run?run={quote(run)}")
    page.locator(".u-over").first.wait_for(timeout=60_000)
    return page


def memory_of(page: Any) -> float:
    """MB of what its scripts keep, after a search for garbage."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    used: float = session.send("Runtime.getHeapUsage")["usedSize"]
    session.detach()
    return used / 1e6


def memory_over_time(port: int, token: str, run: str, minutes: float) -> None:
    with chromium() as browser:
        page, found = opened(browser, port, token, run), []
        for part in range(11):
            if part:
                page.wait_for_timeout(6000 * minutes)
            found.append(f"{memory_of(page):.1f}")
    print(f"\nMB of the page's scripts at each tenth of {minutes:g} minutes: {' '.join(found)}")


def speed_beside_the_page(turns: int) -> None:
    """Tokens a second of the bundled model's training, with the page that shows it and without, in turn."""
    rows = Path(__file__).parents[1] / "src/hone/assets/demo/functions.train.jsonl"
    rates: dict[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as made, page_server(Path(made)) as (_, port, token), chromium() as browser:
        for turn in range(2 * turns):
            name, watched = f"run-{turn}", turn % 2 == 0
            keys = ["model_name_or_path=hone-base", f"train_file={rows}", f"output_dir={made}/{name}", "max_steps=500"]
            keys += ["validation_split_percentage=0", "save_strategy=no", "logging_steps=5", "use_cpu=true"]
            with (Path(made) / f"{name}.txt").open("w") as said:
                training = subprocess.Popen([sys.executable, "-m", "hone", "train", *keys], stdout=said, stderr=said)
            metrics = Path(made) / name / "metrics.jsonl"
            while watched and training.poll() is None and not (metrics.is_file() and metrics.stat().st_size):
                time.sleep(0.1)
            page = opened(browser, port, token, name) if watched else None
            training.wait()
            assert training.returncode == 0, said.name
            logged = [json.loads(line) for line in metrics.read_text().splitlines()]
            rates[watched].append(statistics.median(one["tokens_per_s"] for one in logged if "tokens_per_s" in one))
            if page:
                page.close()
    for watched, found in rates.items():
        print(f"tokens/s {'with' if watched else 'without'} the page: {' '.join(f'{rate:.0f}' for rate in found)}")
    ratios = [a / b for a, b in zip(rates[True], rates[False], strict=True)]
    print(f"ratio: median {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--points", type=int, default=2000)
    parser.add_argument("--living", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=0, help="that a run stays open in Chromium")
    parser.add_argument("--training", type=int, default=0, help="trainings with and without their page")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        runs = copies(options.run, folder, options.runs, options.points, options.living)
        stop = threading.Event()
        growing = threading.Thread(target=grow, args=(runs[: options.living], stop, options.points))
        with page_server(folder) as (server, port, token):
            growing.start()
            try:
                answers(options, server, port, token, runs)
                if options.minutes:
                    memory_over_time(port, token, runs[0].name, options.minutes)
            finally:
                stop.set()
                growing.join()
    if options.training:
        speed_beside_the_page(options.training)


def answers(
    options: argparse.Namespace, server: "subprocess.Popen[str]", port: int, token: str, runs: list[Path]
) -> None:
    """The table of how long each answer takes."""
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
        print(f"| {what} | {first:.0f} | {statistics.median(more):.0f} | {max(more):.0f} | {len(text) / 1000:.0f} |")
    memory = psutil.Process(server.pid).memory_info().rss
    print(f"\nthe server's memory: {memory / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
