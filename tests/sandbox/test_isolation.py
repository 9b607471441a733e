"""Isolation is there or refused, with the reason and the way out; it is never weaker than it says."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hone.grading.sandbox import HarnessError, IsolationError, isolation, selftest, syscalls
from hone.grading.sandbox.isolation import Sandbox, program_loader, unused_id
from hone.grading.sandbox.selftest import ready
from hone.grading.sandbox.verdict import run_own

LINUX = pytest.mark.skipif(platform.system() != "Linux", reason="bubblewrap is for Linux")


def refusal(isolation: str = "strict") -> str:
    with pytest.raises(IsolationError) as caught, ready(isolation):  # type: ignore[arg-type]
        pytest.fail("a sandbox was made")
    assert "--isolation none" in str(caught.value), "the way out is named"
    return str(caught.value)


def test_windows_is_refused_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has neither grp nor pwd: grading can be imported all the same, and says why it runs nothing."""
    program = "import sys; sys.modules['grp'] = sys.modules['pwd'] = None; import hone.grading.grade"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(isolation.platform, "system", lambda: "Windows")
    assert "bubblewrap needs Linux, this is Windows" in refusal()
    monkeypatch.setattr(isolation.os, "name", "nt")
    with pytest.raises(IsolationError, match="Linux and macOS only"), isolation.open_sandbox("none"):
        pytest.fail("programs would run without their limits")


def fake(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@LINUX
def test_without_bubblewrap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "bubblewrap is not installed" in refusal()
    assert "apt-get install bubblewrap" in refusal()


@LINUX
def test_an_old_or_broken_bubblewrap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("pyseccomp")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    fake(tmp_path, "bwrap", "echo usage: bwrap --unshare-all")
    assert "does not know --disable-userns" in refusal()
    words = "echo 'bwrap: Creating new namespace failed: Operation not permitted' >&2; exit 1"
    fake(tmp_path, "bwrap", f'test "$1" = --help && echo --disable-userns && exit; {words}')
    assert "Creating new namespace failed" in refusal()


WEAKER = [
    (["--remount-ro", "/"], [], "", "write to the root folder"),
    (["--unshare-all"], ["--unshare-pid", "--unshare-uts", "--unshare-ipc"], "network", "connect to a port"),
    (["--unshare-all"], ["--unshare-pid", "--unshare-uts"], "network", "make a socket"),
]


@pytest.mark.parametrize("words, instead, allowed, escape", WEAKER)
def test_each_part_is_missed(
    strict_sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    instead: list[str],
    allowed: str,
    escape: str,
) -> None:
    """Take one part of the isolation away, and the self-test says which."""
    wrapper = list(strict_sandbox.wrapper)
    at = next(i for i in range(len(wrapper)) if wrapper[i : i + len(words)] == words)
    wrapper[at : at + len(words)] = instead
    denied = {name: calls for name, calls in syscalls.DENIED.items() if name != allowed}
    monkeypatch.setattr(syscalls, "DENIED", denied)
    program = syscalls.seccomp_program()

    @contextmanager
    def weaker(_: str) -> Iterator[Sandbox]:
        yield Sandbox("strict", tuple(wrapper), strict_sandbox.python, program)

    monkeypatch.setattr(selftest, "open_sandbox", weaker)
    assert escape in refusal()


@LINUX
def test_without_the_binding_or_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyseccomp", None)
    with pytest.raises(IsolationError, match="pip install pyseccomp"):
        syscalls.seccomp_program()
    monkeypatch.delitem(sys.modules, "pyseccomp", raising=False)
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None if name == "seccomp" else "libc.so.6")
    try:
        import pyseccomp  # noqa: F401
    except ModuleNotFoundError:
        pytest.skip("pyseccomp is not installed")
    except RuntimeError:
        pass
    sys.modules.pop("pyseccomp", None)
    with pytest.raises(IsolationError, match="apt-get install libseccomp2"):
        syscalls.seccomp_program()


def test_other_machines_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(IsolationError, match="riscv64"):
        syscalls.seccomp_program()
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert "needs Linux" in refusal()


@LINUX
def test_the_filter_is_made_of_whole_instructions() -> None:
    pytest.importorskip("pyseccomp")
    program = syscalls.seccomp_program()
    assert len(program) % 8 == 0 and len(program) > 500
    assert program == syscalls.seccomp_program()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root has to step down")
def test_root_that_cannot_step_down_is_refused(monkeypatch: pytest.MonkeyPatch, strict_sandbox: Sandbox) -> None:
    real = isolation.shutil.which

    def which(name: str, path: str | None = None) -> str | None:
        return None if name == "setpriv" else real(name, path=path)

    monkeypatch.setattr(isolation.shutil, "which", which)
    assert "needs setpriv to step down" in refusal()


def test_the_sandbox_holds_the_interpreter_and_little_else(strict_sandbox: Sandbox) -> None:
    source = (
        "import os, sys\nfound = {}\nfor name in ('/', '/dev', '/tmp', '/usr', '/etc', '/home', '/proc'):\n"
        "    try:\n        found[name] = sorted(os.listdir(name))\n    except OSError as error:\n"
        "        found[name] = type(error).__name__\n"
        "site = os.path.dirname(os.__file__) + '/site-packages'\n"
        "found['site'] = os.listdir(site) if os.path.isdir(site) else []\n"
        "found['uid'] = os.getuid(), os.getgid(), os.getgroups(), os.uname().nodename, os.getpid()\n"
        "found['path'] = [name for name in sys.path if 'site-packages' in name]\nresult = found\n"
    )
    found = run_own(strict_sandbox, source, 5)
    assert found["/dev"] == ["null", "urandom", "zero"]
    assert found["/tmp"] == found["site"] == found["path"] == []
    assert found["/etc"] == found["/home"] == found["/proc"] == "FileNotFoundError"
    assert set(found["/"]) <= {"dev", "tmp", *(Path(place).parts[1] for _, place in isolation._mounts())}
    uid, gid, groups, name, number = found["uid"]
    assert (uid, gid, name, number) == (65534, 65534, "sandbox", 1)
    assert set(groups) <= {65534}


@LINUX
def test_the_loader_of_a_program() -> None:
    loader = program_loader(Path(os.path.realpath(sys.executable)))
    assert loader is None or Path(loader).exists()
    with pytest.raises(IsolationError, match="not a 64-bit ELF"):
        program_loader(Path(__file__))


@LINUX
def test_an_unused_id() -> None:
    import pwd

    with pytest.raises(KeyError):
        pwd.getpwuid(unused_id())


def test_a_program_of_ours_that_fails_is_no_answer(strict_sandbox: Sandbox) -> None:
    with pytest.raises(HarnessError, match="ZeroDivisionError"):
        run_own(strict_sandbox, "1 / 0", 5)
