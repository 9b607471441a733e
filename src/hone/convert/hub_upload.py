"""`hone export --to hub`: the model and its card to the Hugging Face hub, private unless asked otherwise.

What goes up is what a reader of the model needs: weights, config, tokenizer, template and card. States to resume from,
rows, samples, configs, logs and what is known of the machine stay here. A file with a token of the hub or a path of
the user's own folder in it stops the upload. After it, the hub's hashes are compared with those of the files.

>>> upload("runs/my", "me/my-model").address                               # doctest: +SKIP
'https://huggingface.co/me/my-model'
"""

import hashlib
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from hone import bundled
from hone.convert.merge import merge
from hone.convert.merged_card import HUB_NAME, NO_LICENCE
from hone.data.tokenizer import load_tokenizer
from hone.errors import SECRET, HoneError, first_line
from hone.hub import in_reach
from hone.manifest import file_digest, refuse_damaged
from hone.models.source import ADAPTER, base_of

GOES_UP = (
    *("README.md", "config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json"),
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "merges.txt", "vocab.txt", "chat_template.jinja", "template.json"),
    *("adapter_config.json", "*.gguf", "Modelfile"),
)
TEXTS = (".json", ".md", ".txt", ".jinja", "")
LOG_IN = "log in once, `hf auth login`, or set HF_TOKEN to a token that may write"


@dataclass(frozen=True)
class Uploaded:
    """What is on the hub now. files: their names. notes: what the user should know."""

    address: str
    files: list[str]
    n_bytes: int
    public: bool
    notes: list[str]


def upload(source: str, repo: str, *, public: bool = False, base: str | None = None, api: Any = None) -> Uploaded:
    """Upload a run's model, an adapter or an exported folder as `repo`, which is made if it is not there.

    Args:
        base: where an adapter's base is now; an adapter whose base is not on the hub is merged with it first.
        api: as huggingface_hub.HfApi has it; for tests.

    Raises:
        HoneError: no network, no token, no right; a public repository that was not asked for; a file that gives
            something away; or the hub has other bytes afterwards.
    """
    folder = Path(source)
    if not folder.is_dir() or bundled.is_meant(source):
        raise HoneError("only a folder can be uploaded", where=source, fix="name a run, or a folder that hone wrote")
    refuse_damaged(folder)
    if api is None:
        api = _api()
    with _whole(folder, base) as (ready, notes):
        files = [path for path in sorted(ready.iterdir()) if any(fnmatch(path.name, one) for one in GOES_UP)]
        for path in files:
            refuse_secrets(path)
        if not (ready / "README.md").is_file():
            notes.append("it has no card (README.md)")
        elif NO_LICENCE in (ready / "README.md").read_text(encoding="utf-8", errors="replace"):
            notes.append("the card says no licence: the licences of base and rows bind you")
        with _clear_errors(repo):
            address = _create(api, repo, public)
            api.upload_folder(
                folder_path=str(ready),
                repo_id=repo,
                allow_patterns=[path.name for path in files],
                commit_message="Upload with hone",
            )
            _compare(api, repo, files)
        n_bytes = sum(path.stat().st_size for path in files)
        return Uploaded(address, [path.name for path in files], n_bytes, public, notes)


def _api() -> Any:
    """The hub's client, if there is a way to the hub and a token for it."""
    from huggingface_hub import HfApi, get_token

    if not in_reach():
        raise HoneError("the hub is out of reach", fix="connect, unset HF_HUB_OFFLINE, and give the command again")
    if get_token() is None:
        raise HoneError("no token for the hub", fix=LOG_IN)
    return HfApi()


@contextmanager
def _whole(folder: Path, base: str | None) -> Iterator[tuple[Path, list[str]]]:
    """The folder to upload: the source itself, or, where others could not load it, base and adapter in one."""
    if not (folder / ADAPTER).is_file():
        yield folder, []
        return
    named = str(base or base_of(folder))
    if HUB_NAME.fullmatch(named) and not Path(named).exists() and not bundled.is_meant(named):
        yield folder, []
        return
    with tempfile.TemporaryDirectory(dir=folder.resolve().parent, prefix=".hone-upload-") as scratch:
        merged = Path(scratch) / folder.resolve().name
        merge(str(folder), merged, load_tokenizer(folder), base=base)
        yield merged, ["the adapter's base is not on the hub: base and adapter were merged"]


def refuse_secrets(path: Path) -> None:
    """
    Raises:
        HoneError: the file has a token, a password in an address, or the path of the user's home in it; with its line.
    """
    if path.suffix not in TEXTS or path.name == "tokenizer.json":
        return
    home = re.escape(str(Path.home()))
    own = re.compile(rf"{home}(?=[/\\\"'\s]|$)") if len(str(Path.home())) > 1 else None
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        for what, found in (("a secret", SECRET.search(line)), ("a path of your machine", own and own.search(line))):
            if found:
                fix = "take it out of the file; nothing was uploaded"
                raise HoneError(f"has {what} in it", where=f"{path}:{number}", fix=fix)


def _create(api: Any, repo: str, public: bool) -> str:
    """The repository's address; one that is there already has to be as public as was asked for."""
    address = str(api.create_repo(repo_id=repo, repo_type="model", private=not public, exist_ok=True))
    is_public = not api.repo_info(repo_id=repo).private
    if is_public and not public:
        raise HoneError("the repository is there already, and everybody can read it", where=repo,
                        fix="name another, or say --public")  # fmt: skip
    return address


def _compare(api: Any, repo: str, files: list[Path]) -> None:
    """Each file is on the hub with the hash that it has here."""
    there = {one.rfilename: one for one in api.repo_info(repo_id=repo, files_metadata=True).siblings}
    for path in files:
        found = there.get(path.name)
        lfs = getattr(found, "lfs", None)
        same = found is not None and (lfs.sha256 == file_digest(path) if lfs else found.blob_id == _git_hash(path))
        if not same:
            fix = "give the command again"
            raise HoneError(f"the hub has other bytes of {path.name} than were sent", where=repo, fix=fix)


def _git_hash(path: Path) -> str:
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode())
    digest.update(path.read_bytes())
    return digest.hexdigest()


@contextmanager
def _clear_errors(repo: str) -> Iterator[None]:
    """What the client raises as one message: no right, no network, no space."""
    try:
        yield
    except HoneError:
        raise
    except Exception as error:  # HfHubHTTPError, httpx's, OSError …
        status = getattr(getattr(error, "response", None), "status_code", None)
        fixes = {401: LOG_IN, 403: f"take a token that may write, and a name of your own; {LOG_IN}"}
        fix = fixes.get(status or 0, "look at the network and the hub's status page, and give the command again")
        raise HoneError(f"the hub refused: {first_line(error)[:300]}", where=repo, fix=fix) from error
