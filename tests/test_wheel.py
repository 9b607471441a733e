"""What is distributed works without the checkout: sdist, a wheel made of it, installed, and a training with it.

Nothing is fetched: the new environment sees the libraries of this one, but not its hone.
"""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, 'build_' + sys.argv[1])(sys.argv[2])"
LARGE = {"assets/base/model.safetensors"}  # what may exceed a megabyte
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}

pytestmark = pytest.mark.slow


def tracked() -> list[str]:
    """The files of the checkout, new ones included, ignored ones not."""
    listed = ["git", "ls-files", "-co", "--exclude-standard"]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


def build(kind: str, source: Path, target: Path) -> Path:
    target.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", BUILD, kind, str(target)], cwd=source, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (made,) = target.iterdir()
    return made


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("checkout")
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout: git says what belongs to the project")
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    return build("sdist", source, tmp_path_factory.mktemp("sdist") / "made")


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (source,) = folder.iterdir()
    return build("wheel", source, tmp_path_factory.mktemp("wheel") / "made")


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment with the wheel in it."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps"]
    done = subprocess.run([*install, str(wheel)], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    query = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(subprocess.run([python, "-c", query], capture_output=True, text=True, check=True).stdout.strip())
    libraries = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "libraries.pth").write_text("\n".join(sorted(libraries)) + "\n", encoding="utf-8")
    return python


def run(python: Path, folder: Path, *arguments: str) -> str:
    """Standard output of `hone …` as the new environment's script runs it."""
    script = python.with_name("hone.exe" if os.name == "nt" else "hone")
    environment = {**ENVIRONMENT, "HONE_CACHE": str(folder / "cache"), "PATH": str(python.parent)}
    done = subprocess.run([script, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_sdist_holds_no_junk(sdist: Path) -> None:
    known = {Path(name).as_posix() for name in tracked()}
    with tarfile.open(sdist) as archive:
        members = {member.name.partition("/")[2]: member for member in archive.getmembers() if member.isfile()}
    made = {name for name in members if "egg-info" in name or name in ("PKG-INFO", "setup.cfg")}
    assert set(members) - made <= known, "only what git has"
    assert not [name for name in members if name.startswith(("tests/", "benchmarks/", "."))]
    large = {name for name, member in members.items() if member.size > 1_000_000}
    assert large == {f"src/hone/{name}" for name in LARGE}


def test_the_wheel_has_every_file_of_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")}
    wanted = {name.removeprefix("src/") for name in tracked() if name.startswith("src/hone/")}
    assert held == wanted | {"hone/concepts.md"}, held ^ wanted


def test_what_is_installed_answers(installed: Path, tmp_path: Path) -> None:
    where = subprocess.run(
        [installed, "-c", "import hone; print(hone.__file__)"], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert Path(where.stdout.strip()).is_relative_to(installed.parents[1]), where.stdout + where.stderr
    (version,) = re.findall(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    assert run(installed, tmp_path, "--version").split()[-1] == version
    assert "From rows to a run" in run(installed, tmp_path, "--help")
    assert "method.lora_r" in run(installed, tmp_path, "explain", "lora_r")
    assert "Perplexity is" in run(installed, tmp_path, "explain", "perplexity")
    run(installed, tmp_path, "init", "light-lab")
    assert "learning_rate:" in (tmp_path / "light-lab.yaml").read_text(encoding="utf-8")


def test_what_is_installed_trains_the_bundled_model(installed: Path, tmp_path: Path) -> None:
    small = ["max_steps=2", "max_train_samples=16", "max_eval_samples=4", "code_tasks=null", "sample_prompts=1"]
    told = json.loads(run(installed, tmp_path, "demo", "--json", "use_cpu=true", "sample_max_new_tokens=4", *small))
    folder = tmp_path / told["run"]
    assert {"model.safetensors", "report.html", "config.resolved.yaml"} <= {path.name for path in folder.iterdir()}
    assert told["tuned"]["n_items"] == told["base"]["n_items"] == 4
    assert "4 held-out documents" in (folder / "report.md").read_text(encoding="utf-8")
