"""What `hone corpus` prints."""

from typing import TYPE_CHECKING

from hone.show import duration, plural, size, table

if TYPE_CHECKING:
    from hone.corpus.plan import Planned
    from hone.corpus.run import Ran

NAMED = 3  # places of each reason
MB = 1e6


def plan_text(planned: "Planned") -> str:
    """What a corpus would cost, stage by stage."""
    total = sum(planned.seconds.values())
    rows = [[name, duration(s), _rate(planned.n_bytes, s)] for name, s in planned.seconds.items()]
    rows.append(["in all", duration(total), _rate(planned.n_bytes, total)])
    enough = "enough" if planned.disk_bytes <= planned.free_bytes else "TOO SMALL"
    lines = [
        f"to read: {plural(planned.n_files, 'file')}, {size(planned.n_bytes)}, in {plural(planned.n_tasks, 'task')}",
        f"measured on a sample of {size(planned.sampled_bytes)}, scaled:",
        "",
        table(["stage", "of one worker", "MB/s"], rows),
        "",
        f"time: {duration(planned.total_s)} with {plural(planned.workers, 'worker')}",
        f"documents: {planned.n_documents:,} read, {planned.n_kept:,} kept; {planned.n_tokens:,} tokens",
        *(f"dropped: {share:.1%} {reason}" for reason, share in planned.dropped.items()),
        f"disk: {size(planned.disk_bytes)} of {size(planned.free_bytes)} free at {planned.folder}: {enough}",
        "copies are found in the sample alone: in all there are more, and fewer tokens are left",
    ]
    return "\n".join(lines)


def _rate(n_bytes: int, seconds: float) -> str:
    return f"{n_bytes / MB / seconds:,.1f}" if seconds else "-"


def ran_text(ran: "Ran") -> str:
    """What was made, and what was left out and why."""
    found = ran.manifest
    (documents, tokens), (held, held_tokens) = found.total("train"), found.total("val")
    n_bytes = sum(file.bytes for file in found.files.values())
    lines = [
        f"{ran.folder}: {plural(len(found.shards), 'shard')}, {size(n_bytes)}" + (", there already" * ran.there),
        f"train: {plural(documents, 'document')}, {tokens:,} tokens",
        f"val: {plural(held, 'document')}, {held_tokens:,} tokens",
    ]
    if not held:
        lines.append("no document is held out, so nothing can be measured: set a larger validation_percentage")
    for one in found.dropped:
        more = ", …" if one.count > NAMED else ""
        places = f": {', '.join(one.first[:NAMED])}{more}" if one.first else ""
        lines.append(f"dropped {one.count:,} × {one.reason}{places}")
    lines += [f"masked {n:,} {kind}" for kind, n in found.n_masked.items()]
    lines.append(f"every byte: hone verify {ran.folder}")
    lines.append(f"train on it: hone train CONFIG train_file={ran.folder} on_long_row=split")  # else long ones are cut
    return "\n".join(lines)
