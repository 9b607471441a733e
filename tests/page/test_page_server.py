"""What the page's server tells of run folders, and to whom."""

import contextlib
import hashlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from paging import TOKEN, Client, paging

from hone.config.dump import leaves_of
from hone.config.load import load_config
from hone.errors import HoneError
from hone.page import work
from hone.page.app import FILES, MOST_BYTES
from hone.page.run import kept_token
from hone.page.watch import Watched, metrics_from, thinned
from hone.runs import Run
from written_run import write_run

API = ["runs", "run", "log", "metrics", "compare", "data", "word", "words", "recipes", "name", "started"]
ACTIONS = ["stop", "resume", "draft", "check", "plan", "train", "item"]
VENDORED = {  # uPlot 1.6.32, as its package has it; another version is taken with its hashes
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    "uPlot.LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "group/b"):
        write_run(tmp_path / "runs" / name)
    return tmp_path / "runs"


@pytest.fixture
def client(folder: Path) -> Iterator[Client]:
    with paging(folder) as found:
        yield found


# ---- who may ask ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", API)
def test_nothing_is_told_without_the_token(client: Client, path: str) -> None:
    for given in ("", "0", TOKEN[:-1], f"{TOKEN}0"):
        status, _, text = client.raw("GET", f"/api/{path}?run=a&a=a&b=a&name=loss", x_hone_token=given)
        assert status == 401 and "token" in json.loads(text)["error"]


@pytest.mark.parametrize("path", [*ACTIONS, "play/completions"])
def test_nothing_is_done_without_the_token_by_a_form_or_by_another_page(client: Client, path: str) -> None:
    where = f"/api/{path}?run=a"
    assert client.raw("POST", where, b"{}", x_hone_token="")[0] == 401
    assert client.raw("POST", where, b"{}", content_type="text/plain")[0] == 415
    assert client.raw("POST", where, b"{}", origin="https://evil.example")[0] == 403
    assert client.raw("POST", where, b"{}", sec_fetch_site="cross-site")[0] == 403
    assert client.raw("POST", where, b"{}", host="evil.example")[0] == 403
    assert client.raw("GET", "/api/stop?run=a")[0] == 405


def test_a_name_that_leads_here_is_not_answered_to(client: Client) -> None:
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:7860", ""):
        assert client.raw("GET", "/", host=host)[0] in (400, 403)
    assert client.raw("GET", "/", host=f"localhost:{client.port}")[0] == 200


def test_bodies_are_bounded(client: Client) -> None:
    assert client.raw("POST", "/api/play/completions?run=a", b"x" * (MOST_BYTES + 1))[0] == 413
    assert client.raw("POST", "/api/play/files?run=a", b"{}")[0] == 404


@pytest.mark.parametrize(
    "path",
    ["/../app.py", "/..%2f..%2fcli.py", "/vendor/..%2f..%2f..%2fcli.py", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd"],
)
def test_no_path_leads_out_of_the_pages_own_files(client: Client, path: str) -> None:
    assert client.raw("GET", path)[0] == 404


@pytest.mark.parametrize("path", ["/api/stop?run=a", "/api/train", "/api/play/completions?run=a"])
def test_ten_megabytes_are_refused_before_they_are_read(client: Client, path: str) -> None:
    with socket.create_connection(("127.0.0.1", client.port), timeout=30) as sent:
        head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{client.port}\r\nx-hone-token: {TOKEN}\r\n"
        sent.sendall(f"{head}content-type: application/json\r\ncontent-length: 10000000\r\n\r\n".encode())
        with contextlib.suppress(ConnectionError):
            for _ in range(10):
                sent.sendall(b"x" * 1_000_000)
        answer = sent.recv(1 << 16)
    assert answer.startswith(b"HTTP/1.1 413"), answer
    assert client.get("/api/runs")["runs"]


def test_a_thousand_connections_are_bounded_and_the_page_answers_after_them(client: Client) -> None:
    head = f"GET /api/runs HTTP/1.1\r\nhost: 127.0.0.1:{client.port}\r\nx-hone-token: {TOKEN}\r\n".encode()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))  # both ends of each are in this process
    with contextlib.ExitStack() as crowd:
        crowd.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1000):  # each with half a request: it waits for the rest
            with contextlib.suppress(ConnectionError, TimeoutError):
                one = crowd.enter_context(socket.create_connection(("127.0.0.1", client.port), timeout=30))
                one.sendall(head)
        assert client.raw("GET", "/api/runs")[0] in (200, 503), "it says that it is full"
    for _ in range(100):
        if client.raw("GET", "/api/runs")[0] == 200:
            break
        time.sleep(0.1)
    assert client.get("/api/runs")["runs"], "places are free again"


def test_the_page_brings_no_script_of_others(client: Client) -> None:
    for path, (_, kind) in FILES.items():
        status, headers, text = client.raw("GET", f"/{path}", x_hone_token="")
        assert status == 200 and headers["content-type"].startswith(kind) and text
        assert "default-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    page = client.raw("GET", "/")[2].decode()
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|https?://", page)


def test_what_is_vendored_is_what_was_published() -> None:
    place = resources.files("hone").joinpath("assets", "page", "vendor")
    assert {file.name for file in place.iterdir()} == {*VENDORED, "VENDORED.md"}
    for name, expected in VENDORED.items():
        assert hashlib.sha256(place.joinpath(name).read_bytes()).hexdigest() == expected


def test_the_token_is_kept_and_only_for_its_owner(tmp_path: Path) -> None:
    token = kept_token(tmp_path / "cache" / "token")
    assert len(token) >= 32 and kept_token(tmp_path / "cache" / "token") == token
    assert (tmp_path / "cache" / "token").stat().st_mode & 0o777 == 0o600
    (tmp_path / "cache" / "token").write_text("")
    assert kept_token(tmp_path / "cache" / "token") != ""


# ---- what is told ---------------------------------------------------------------------------------------------------


def test_runs_are_found_by_their_names_and_no_path_leads_out(client: Client, folder: Path, tmp_path: Path) -> None:
    assert [row["id"] for row in client.get("/api/runs")["runs"]] == ["a", "group/b"]
    write_run(tmp_path / "outside")
    for name in ("../outside", str(tmp_path / "outside"), "a/../../outside", "", ".", "a/", "a\0", "nowhere"):
        for path in ("run", "metrics", "log"):
            status, error = client.refused("GET", f"/api/{path}", run=name)
            assert status == 404 and "no run" in error


def test_a_row_says_what_the_folder_does(client: Client, folder: Path) -> None:
    run, row = Run(folder / "a"), client.get("/api/runs")["runs"][0]
    assert row["after"] == run.tuned.value("loss") if run.tuned else None  # type: ignore[union-attr]
    assert row["last_loss"] == 4.5
    (folder / "a" / "status.json").write_text("{")
    time.sleep(0.01)
    rows = {row["id"]: row["status"] for row in client.get("/api/runs")["runs"]}
    assert rows["a"] == "damaged" and rows["group/b"] != "damaged"


def test_a_killed_training_is_not_shown_as_running(folder: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (folder / "a" / "status.json").write_text(json.dumps({"status": "running", "stage": "training", "pid": gone.pid}))
    assert Watched(folder).rows()[0]["status"] == "killed"


def test_metrics_come_from_a_place_on_and_whole_lines_only(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    assert metrics_from(file, 0)["columns"]["step"] == []
    file.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    first = metrics_from(file, 0)
    assert first["columns"]["step"] == [1] and first["columns"]["loss"] == [2.0] and not first["more"]
    with file.open("a") as more:
        more.write('ss": 1.5}\nnot json\n{"step": 3, "loss": null, "eval_loss": true}\n')
    second = metrics_from(file, first["next"])
    assert second["columns"]["step"] == [2, 3] and second["columns"]["loss"] == [1.5, None]
    assert second["columns"]["eval_loss"] == [None, None] and not second["reset"]
    file.write_text('{"step": 1, "loss": 9.0}\n')  # a resumed training has cut it back
    third = metrics_from(file, second["next"])
    assert third["reset"] and third["columns"]["loss"] == [9.0]


def test_long_curves_are_thinned_and_keep_their_extremes() -> None:
    lines: list[dict[str, Any]] = [{"step": i, "loss": 1.0 + (i % 7) / 100} for i in range(10_000)]
    lines[4321]["loss"], lines[8765]["loss"], lines[50]["eval_loss"] = 99.0, -99.0, 3.0
    kept = thinned(lines, 1000)
    assert len(kept) <= 1002
    assert {lines[4321]["step"], lines[8765]["step"], 50} <= {line["step"] for line in kept}
    assert [line["step"] for line in kept] == sorted(line["step"] for line in kept)


def test_a_run_is_shown_as_its_report_shows_it_and_hostile_text_stays_text(client: Client, folder: Path) -> None:
    (folder / "a" / "train.log").write_text("08:00:00 <script>alert(1)</script> \x1b[2J\n")
    found = client.get("/api/run", run="a")
    assert found["verdict"]["word"] and "<h2>" in found["html"]
    assert "<script" not in found["html"].lower()
    lines = client.get("/api/log", run="a")["lines"]
    assert lines == ["08:00:00 <script>alert(1)</script> \\x1b[2J"]  # the page sets it as text


def test_two_runs_are_compared_item_by_item(client: Client, folder: Path) -> None:
    found = client.get("/api/compare", a="a", b="group/b")
    assert "problem" in found or found["sentence"]
    assert "key" in found["settings"]


def test_a_word_is_explained(client: Client) -> None:
    assert "e raised to" in client.get("/api/word", name="perplexity")["text"]
    assert client.refused("GET", "/api/word", name="zzz")[0] == 404


# ---- what is done ----------------------------------------------------------------------------------------------------


def status_of(folder: Path, **values: Any) -> None:
    (folder / "status.json").write_text(json.dumps({"status": "running", "stage": "training", **values}))


def test_stop_sends_the_signal_to_a_training_and_to_nothing_else(client: Client, folder: Path) -> None:
    trains = "import sys, time, filelock as f; l = f.FileLock(sys.argv[1]); l.acquire(); print(1); time.sleep(60)"
    other = subprocess.Popen(["sleep", "60"])
    ours = None
    try:
        status_of(folder / "a", pid=other.pid)
        status, error = client.refused("POST", "/api/stop", run="a")
        assert status == 409 and f"process {other.pid} is another program" in error
        assert other.poll() is None
        words = [sys.executable, "-uc", trains, str(folder / "a" / ".lock")]
        ours = subprocess.Popen(words, stdout=subprocess.PIPE)
        assert ours.stdout and ours.stdout.readline(), "it holds the folder"
        status_of(folder / "a", pid=ours.pid)
        assert client.refused("POST", "/api/stop", run="a") == (200, "")
        assert ours.wait(timeout=10) == -signal.SIGTERM
        assert client.refused("POST", "/api/stop", run="a") == (409, "a is not running")
    finally:
        for process in filter(None, (ours, other)):
            process.kill()
            process.wait()


def test_resume_starts_the_command_that_goes_on(client: Client, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(work.Trainings, "start", lambda self, run, words, place: started.append(words))
    status_of(folder / "a", status="interrupted")
    assert client.refused("POST", "/api/resume", run="a") == (200, "")
    assert started == [["train", str(folder / "a" / "config.resolved.yaml")]]
    for state, reason in (
        ({"pid": os.getpid()}, "is running"),
        ({"status": "finished", "stage": "finished"}, "is finished"),
    ):
        status_of(folder / "a", **state)
        assert client.refused("POST", "/api/resume", run="a") == (409, f"a {reason}")
    assert len(started) == 1


def test_models_that_cannot_be_served_say_why(client: Client) -> None:
    status, error = client.refused("GET", "/api/play/models", run="a")
    assert status == 409 and error and "Traceback" not in error


def test_the_last_number_is_found_from_the_end(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.last_metric("loss") is None
    lines = [{"step": i, "loss": float(i)} for i in range(5000)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 1, "lo')
    assert run.last_metric("loss") == 4999.0
    with (tmp_path / "metrics.jsonl").open("w") as file:  # the last loss is farther from the end than is looked at
        file.write('{"loss": 2.5}\n' + '{"eval_loss": 1.0}\n' * 10_000)
    assert run.last_metric("loss") == 2.5
    (tmp_path / "metrics.jsonl").write_text('{"loss": 1}\nnot json\n')
    with pytest.raises(HoneError, match="damaged"):
        run.last_metric("loss")


def test_settings_are_read_line_by_line_as_the_whole_file_says(folder: Path) -> None:
    path = folder / "a" / "config.resolved.yaml"
    whole = load_config(path)
    found = leaves_of(path.read_text(), ["train_file", "model_name_or_path", "seed", "optim", "stop"])
    assert found["seed"] == whole.train.seed and found["optim"] == whole.train.optim
    assert found["stop"] == whole.generate.stop and found["model_name_or_path"] == whole.model.model_name_or_path
    assert str(found["train_file"]) in (str(whole.data.train_file), "None")
