"""The command that runs a Python program in a sandbox, or the reason why there can be none on this machine.

bubblewrap gives namespaces, an empty file system with the interpreter and its libraries read-only, and no capability;
`syscalls.py` the filter; `inside.py` sets the limits. Only kept tools are composed here. A sandbox started by real root
would still be the host's root, so root steps down to an unused user first. Where that user cannot read the
interpreter (one under /root), a holder process mounts it elsewhere in a mount namespace of its own.

>>> with open_sandbox("strict") as sandbox:      # doctest: +SKIP
...     print(sandbox.isolation, sandbox.wrapper)
"""

import json
import os
import platform
import shutil
import struct
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hone.grading.sandbox import IsolationError
from hone.grading.sandbox.syscalls import seccomp_program

Isolation = Literal["strict", "none"]
TMP_BYTES = 16 << 20
NEEDED_OPTION = "--disable-userns"  # bubblewrap 0.8 and later
SYSTEM_LIBRARIES = ("/lib", "/usr/lib", "/lib64", "/usr/lib64", "/lib32", "/usr/lib32")
FLAGS = ("-s", "-S", "-P", "-B")  # no site-packages, no working directory on the path, no .pyc written
ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:backslashreplace"}
WAYS_OUT = (
    "`hone doctor` says what is missing. Or run trusted programs only, without a sandbox: --isolation none "
    "(they can then read and change whatever you can)"
)

# Prints the files that the interpreter and its extension modules map, one a line.
MAPPED = """
import importlib, importlib.machinery, os, sys
for folder in sys.path:
    for name in os.listdir(folder) if folder.endswith("lib-dynload") else []:
        name = name.split(".")[0]
        if not name.startswith(("_test", "xx", "_tkinter", "_ctypes_test")):
            try:
                importlib.import_module(name)
            except Exception:
                pass
for line in open("/proc/self/maps"):
    if "/" in line and ".so" in line:
        print(line[line.index("/"):].rstrip())
"""


@dataclass(frozen=True)
class Sandbox:
    """How to start programs: the words before `python`, Python with its options, and the filter of system calls."""

    isolation: Isolation
    wrapper: tuple[str, ...]
    python: tuple[str, ...]
    filter: bytes | None


@contextmanager
def open_sandbox(isolation: Isolation = "strict") -> Iterator[Sandbox]:
    """Find out how to run programs here. Nothing is downgraded: `none` has to be asked for.

    Raises:
        IsolationError: strict isolation is not possible, with the reason and the way out.
    """
    if isolation == "none":
        if os.name != "posix":
            raise IsolationError(f"programs are run on Linux and macOS only, this is {platform.system()}")
        yield Sandbox("none", (), (_interpreter(), *FLAGS), None)
        return
    with ExitStack() as stack:
        try:
            bwrap = _bubblewrap()
            program = seccomp_program()
            sources = _mounts()
            prefix, moved = _step_down(bwrap, sources, stack)
        except IsolationError as error:
            fix = "\n  ".join(filter(None, (error.fix, WAYS_OUT)))
            raise IsolationError(f"programs cannot be isolated here: {error.what}", fix=fix) from error
        wrapper = (*prefix, *_bubblewrap_words(bwrap, sources, moved))
        yield Sandbox("strict", wrapper, (_interpreter(), *FLAGS), program)


def _bubblewrap() -> str:
    """The path of a bubblewrap that can keep programs from making user namespaces."""
    if platform.system() != "Linux":
        raise IsolationError(f"bubblewrap needs Linux, this is {platform.system()}")
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        fix = "install it (Debian, Ubuntu: sudo apt-get install bubblewrap; Fedora: sudo dnf install bubblewrap)"
        raise IsolationError("bubblewrap is not installed", fix=fix)
    words = subprocess.run([bwrap, "--help"], check=False, capture_output=True, text=True, env={}).stdout
    if NEEDED_OPTION not in words:
        raise IsolationError(f"{bwrap} does not know {NEEDED_OPTION}", fix="install bubblewrap 0.8 or later")
    return os.path.realpath(bwrap)


def _interpreter() -> str:
    """The real file of the running Python, outside any virtual environment."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def _mounts() -> list[tuple[str, str]]:
    """(source, place in the sandbox) of the interpreter, its standard library, its shared libraries and the loader."""
    python = _interpreter()
    base = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix, "installed_base": sys.base_prefix}
    base["installed_platbase"] = sys.base_exec_prefix
    libraries = [sysconfig.get_path(name, vars=base) for name in ("stdlib", "platstdlib")]
    words = [python, *FLAGS, "-c", MAPPED]
    found = subprocess.run(words, check=False, capture_output=True, text=True, env=ENVIRONMENT)
    files = sorted(set(found.stdout.splitlines()))
    if found.returncode or not files:
        raise IsolationError(f"{python} does not say which libraries it needs: {found.stderr[-200:]}")
    wanted = [python, *dict.fromkeys(map(os.path.realpath, libraries))]
    for file in files:
        if any(file.startswith(f"{library}/") for library in wanted[1:]):
            continue
        folder = str(Path(file).parent)
        of_system = any(folder == place or folder.startswith(f"{place}/") for place in SYSTEM_LIBRARIES)
        wanted.append(
            folder if of_system else file
        )  # a folder is one mount; one that is not the system's may hold more
    loader = program_loader(Path(python))
    mounts = [(path, path) for path in dict.fromkeys(wanted)]
    return mounts + ([(os.path.realpath(loader), loader)] if loader and loader not in wanted else [])


def program_loader(program: Path) -> str | None:
    """The path of the dynamic loader that an ELF program names; None for a static one."""
    with program.open("rb") as file:
        head = file.read(64)
        if head[:5] != b"\x7fELF\x02":
            raise IsolationError(f"{program} is not a 64-bit ELF program")
        order = "<" if head[5] == 1 else ">"
        (at,) = struct.unpack_from(f"{order}Q", head, 32)
        size, count = struct.unpack_from(f"{order}HH", head, 54)
        for index in range(count):
            file.seek(at + index * size)
            kind, _, offset, _, _, length = struct.unpack(f"{order}IIQQQQ", file.read(40))
            if kind == 3:  # PT_INTERP
                file.seek(offset)
                return file.read(length).rstrip(b"\0").decode()
    return None


def _bubblewrap_words(bwrap: str, mounts: list[tuple[str, str]], moved: dict[str, str]) -> list[str]:
    words = [bwrap, "--unshare-all", "--unshare-user", NEEDED_OPTION, "--uid", "65534", "--gid", "65534"]
    # Python is the first process: bubblewrap would not wait for one of its own, and leave it to whoever reaps orphans
    words += ["--cap-drop", "ALL", "--die-with-parent", "--new-session", "--hostname", "sandbox", "--as-pid-1"]
    for source, place in mounts:
        words += ["--ro-bind", moved.get(source, source), place]
    for source, place in mounts:
        for name in ("site-packages", "dist-packages"):
            if Path(source, name).is_dir():
                hidden = f"{place}/{name}"
                words += ["--size", "4096", "--tmpfs", hidden, "--remount-ro", hidden]
    for device in ("null", "zero", "urandom"):
        words += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    words += ["--size", str(TMP_BYTES), "--tmpfs", "/tmp", "--remount-ro", "/", "--chdir", "/tmp"]
    libraries = [place for source, place in mounts if ".so" in place or place.startswith(SYSTEM_LIBRARIES)]
    folders = dict.fromkeys(str(Path(place).parent) if ".so" in place else place for place in libraries)
    return [*words, "--setenv", "LD_LIBRARY_PATH", ":".join(folders)]  # there is no ld.so.cache in the sandbox


# --- root steps down ------------------------------------------------------------------------------------------------


def _step_down(bwrap: str, mounts: list[tuple[str, str]], stack: ExitStack) -> tuple[list[str], dict[str, str]]:
    """Words before bubblewrap's that give up root, and where mounts must be taken from instead ({}: as they are)."""
    if os.geteuid() != 0:
        if os.getuid() == 0:
            raise IsolationError("the real user is root, the effective one is not")
        return [], {}
    user = str(unused_id())
    drop = [_tool("setpriv"), "--reuid", user, "--regid", user, "--clear-groups", "--no-new-privs", "--"]
    sources = [bwrap, *(source for source, _ in mounts)]
    script = 'for path; do test -r "$path" || exit 9; test ! -d "$path" || test -x "$path" || exit 9; done'
    words = [*drop, _tool("sh"), "-c", script, "sh", *sources]
    asked = subprocess.run(words, check=False, capture_output=True, text=True, env={})
    if asked.returncode == 0:
        return drop, {}
    if asked.returncode != 9:
        raise IsolationError(f"root cannot step down to an unused user: {asked.stderr.strip()[-200:]}")
    moved = {source: f"/mnt/{index}" for index, (source, _) in enumerate(mounts)}
    holder = stack.enter_context(_holder(bwrap, moved))
    enter = [_tool("nsenter"), f"--mount=/proc/{holder}/ns/mnt", "--setuid", user, "--setgid", user, "--"]
    return enter, moved


@contextmanager
def _holder(bwrap: str, moved: dict[str, str]) -> Iterator[int]:
    """A process with the sources mounted where anyone may read them, seen by nobody else; yields its id.

    It reads a pipe of ours, so it ends when we do, however we end.
    """
    words = [bwrap, "--dev-bind", "/", "/", "--tmpfs", "/mnt"]
    for source, place in moved.items():
        words += ["--ro-bind", source, place]
    told, tell = os.pipe()
    words += ["--die-with-parent", "--info-fd", str(tell), "--", _tool("cat")]
    process = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={},
        pass_fds=(tell,),
        bufsize=0,
    )
    assert process.stdin and process.stdout and process.stderr
    try:
        os.close(tell)
        with os.fdopen(told) as file:
            text = file.read()
        with suppress(BrokenPipeError):
            process.stdin.write(b"up\n")
        if process.stdout.readline() != b"up\n":  # an echo: everything is mounted
            reason = process.stderr.read().decode(errors="replace").strip()[-200:]
            fix = "run hone as a normal user, or with a Python that every user may read (not under /root)"
            raise IsolationError(f"root cannot hand {_interpreter()} to an unused user: {reason}", fix=fix)
        yield json.loads(text)["child-pid"]
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def unused_id() -> int:
    """A number that belongs to no user and no group."""
    import grp  # here, as Windows has neither: there `hone grade` shall refuse with a sentence
    import pwd

    for number in range(64900, 64000, -1):
        try:
            pwd.getpwuid(number)
        except KeyError:
            try:
                grp.getgrgid(number)
            except KeyError:
                return number
    raise IsolationError("no unused user id between 64001 and 64900")


def _tool(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin")
    if found is None:
        raise IsolationError(f"root needs {name} to step down", fix="install util-linux, or run as a normal user")
    return found
