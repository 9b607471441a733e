"""The stages of a corpus, in their order, and what a task of each does. All that runs tasks calls `run_task`.

>>> [stage.name for stage in stages_of(work)]                                      # doctest: +SKIP
['documents', 'copies', 'signatures', 'buckets', 'clusters', 'tokens', 'shards']
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hone.corpus.copies import n_copy_tasks, write_copies
from hone.corpus.documents import write_documents
from hone.corpus.leaks import write_grams, write_leaks
from hone.corpus.near import n_bucket_tasks, write_buckets, write_clusters, write_signatures
from hone.corpus.shards import write_shards, write_tokens
from hone.corpus.work import About, Done, Work, do, key_of, open_work

SHARD_TASKS = 128  # at most: each looks through the index of all tokens


@dataclass(frozen=True)
class Stage:
    """A step that all tasks of the one before must have finished. needs: earlier stages whose results it reads.

    own: of these, those of which a task reads the result of its own number alone.
    """

    name: str
    n_tasks: int
    write: Callable[[Work, int, Path], About]
    settings: Mapping[str, object]
    needs: Sequence[str] = ()
    own: Sequence[str] = ()


def stages_of(work: Work) -> list[Stage]:
    """The stages of a plan; those that it does not ask for are left out."""
    s, n = work.settings, work.n_tasks
    n_bytes = sum(part.n_bytes for part in work.plan.parts)
    copies = n_copy_tasks(n_bytes) if s.near.exact else 0
    buckets = n_bucket_tasks(s.near, n_bytes)
    leaks = s.contamination.evaluation_files is not None
    near, files = s.near.model_dump(), {"files": work.plan.evaluation}
    reading = {**s.read.model_dump(), **s.filter.model_dump(), "files": None}
    after_copies = ("copies",) if copies else ()
    found: list[Stage] = [Stage("documents", n, write_documents, reading)]
    if copies:
        found.append(Stage("copies", copies, partial(write_copies, n_tasks=copies), {}, ["documents"]))
    if s.near.near:
        write = partial(write_signatures, n_copy_tasks=copies)
        found.append(Stage("signatures", n, write, near, after_copies, ["documents"]))
        found.append(Stage("buckets", buckets, partial(write_buckets, n_tasks=buckets), near, ["signatures"]))
        found.append(Stage("clusters", 1, partial(write_clusters, n_bucket_tasks=buckets), {}, ["buckets"]))
    if leaks:
        write = partial(write_grams, n_copy_tasks=copies)
        found.append(Stage("grams", n, write, files, after_copies, ["documents"]))
        found.append(Stage("leaks", 1, write_leaks, files, ["grams"]))
    rules = {**s.tokens.model_dump(), "tokenizer": work.plan.tokenizer.sha256, "shard_tokens": None}
    before = [*after_copies, *(["clusters"] if s.near.near else []), *(["leaks"] if leaks else [])]
    write = partial(write_tokens, n_copy_tasks=copies, near=s.near.near, leaks=leaks)
    found.append(Stage("tokens", n, write, rules, before, ["documents"]))
    shards = min(n, SHARD_TASKS)
    cut = {"shard_tokens": s.tokens.shard_tokens}
    found.append(Stage("shards", shards, partial(write_shards, n_tasks=shards), cut, ["tokens"]))
    return found


def run_task(folder: Path, name: str, rank: int) -> Done:
    """Do a task of a stage, or find that it is done.

    Raises:
        HoneError: what it reads or the disk is at fault; what is finished stays.
    """
    work = open_work(folder)
    stages = {stage.name: stage for stage in stages_of(work)}
    stage = stages[name]
    inputs: list[object] = [done.hashes for own in stage.own for done in [work.done(own, rank)]]
    for needed in stage.needs:
        inputs.append([done.hashes for done in work.all_done(needed, stages[needed].n_tasks)])
    if name == "documents":
        inputs += [part.model_dump() for part in work.plan.tasks[rank]]
    key = key_of(f"{name} {rank}/{stage.n_tasks}", stage.settings, inputs)
    return do(work.result(name, rank), key, partial(stage.write, work, rank))
