"""What `hone plan` prints."""

from typing import TYPE_CHECKING

from hone.show import duration, in_lines, size, table

if TYPE_CHECKING:
    from hone.planning.memory import Footprint
    from hone.planning.plan import Plan


def plan_text(plan: "Plan") -> str:
    """What `hone plan` prints: what trains, how long, in how much memory, on how much disk, and what to lower."""
    schedule, disk = plan.schedule, plan.disk
    about = "" if schedule.exact else "about "
    parts = [
        f"model: {plan.model}, method {plan.method}, on {plan.device}",
        group_table(plan),
        f"data: {about}{schedule.n_examples:,} examples, {about}{schedule.epoch_tokens:,} tokens an epoch, "
        f"{schedule.supervised_tokens:,} supervised; {schedule.validation_tokens:,} tokens to measure ({schedule.how})",
        f"steps: {schedule.steps:,} in {schedule.epochs:.4g} epochs, {schedule.steps_per_epoch:,} an epoch; "
        f"{about}{schedule.tokens:,} tokens; the fullest micro-batch has {schedule.largest:,}",
        "\n".join(in_lines("accelerations", plan.accelerations)),
        _memory_text(plan),
        f"disk: {size(disk.total)} at most: model {size(disk.model)}, checkpoints {disk.kept} x "
        f"{size(disk.checkpoint)}; free: {size(disk.free)}"
        + ("" if disk.total <= disk.free else "  NOT ENOUGH: lower save_total_limit"),
        _time_text(plan),
    ]
    return "\n\n".join(parts)


def group_table(plan: "Plan") -> str:
    """Groups of tensors that train, then those that are frozen."""
    rows, side = [], None
    for group in plan.groups:
        mark = "" if group.trains == side else "trains" if group.trains else "frozen"
        side = group.trains
        rows.append(
            [mark, group.name, f"{group.n_tensors}", f"{group.n_parameters:,}", f"{group.share:.4%}", group.note]
        )
    total = sum(group.n_parameters for group in plan.groups)
    trained = sum(group.n_parameters for group in plan.groups if group.trains)
    summary = f"{trained:,} of {total:,} parameters train ({trained / total:.4%})"
    return table(["", "", "tensors", "parameters", "share", ""], rows) + "\n" + summary


def _memory_text(plan: "Plan") -> str:
    memory = plan.memory
    parts = [("weights", memory.weights), ("gradients", memory.gradients), ("optimizer", memory.optimizer)]
    if memory.activations is not None and memory.logits is not None:
        parts += [("activations", memory.activations), ("logits and loss", memory.logits)]
    times = [("a training step", memory.training), ("an evaluation", memory.evaluation), ("loading", memory.loading)]
    rows = [[name, size(value)] for name, value in [*parts, *((f"in all, at once, in {n}", v) for n, v in times if v)]]
    if memory.gathered:
        rows.insert(3, ["put together for a pass", size(memory.gathered)])
    if memory.gaps:
        rows.append(["kept between the blocks", size(memory.gaps)])
    of = " of each process" if memory.processes > 1 else ""
    lines = [table([f"memory{of}", "at the fullest"], rows)]
    if memory.untraced:
        lines.append(
            f"at least: the step of this model cannot be followed ({memory.untraced}), activations come on top"
        )
    verdict = "it fits" if memory.fits else "IT DOES NOT FIT"
    lines += _group_lines(memory)
    lines.append(f"needed {size(memory.needed)}, free {size(memory.free)}: {verdict}")
    for change in plan.changes:
        settings = " ".join(
            f"{key}={str(value).lower() if value is True else value}" for key, value in change.settings.items()
        )
        lines.append(f"  {size(change.total):>9}{'  fits' if change.fits else '      '}  with {settings}")
    if plan.changes and not plan.changes[-1].fits:
        lines.append(
            "  no setting makes it fit here: take a smaller model, shorter rows (max_length), or another machine"
        )
    return "\n".join(lines)


def _group_lines(memory: "Footprint") -> list[str]:
    """What is said of several processes; none where there is one."""
    if memory.processes == 1:
        return []
    where = "share its memory" if memory.on_cpu else "have a GPU each"
    line = f"{memory.processes} processes, {memory.here} on this machine, which {where}"
    copy = f"; the first keeps a whole copy, {size(memory.copied)}, in the machine's memory" if memory.copied else ""
    sent = (
        f"estimated: each sends {size(memory.sent)} in a step, and gets as much; how long that takes is not known here"
    )
    return [line + copy, sent]


def _time_text(plan: "Plan") -> str:
    timing = plan.timing
    if timing is None:
        return "time: not measured; --measure takes two real steps"
    total = timing.train_s + timing.evaluations * timing.evaluation_s
    return (
        f"time: about {duration(total)}: {plan.schedule.steps:,} steps of {timing.step_s:.2f} s at "
        f"{timing.tokens_per_s:,.0f} tokens/s ({duration(timing.train_s)}), {timing.evaluations} evaluations of about "
        f"{duration(timing.evaluation_s)}; {_on_top(plan)}\n"
        f"memory of the two steps, measured: {size(timing.peak_memory)}"
    )


def _on_top(plan: "Plan") -> str:
    """What the time does not have in it."""
    if plan.memory.processes == 1:
        return "generations and saving come on top"
    return (
        f"measured in one process, estimated for {plan.memory.processes}; "
        "sending the gradients, generations and saving come on top"
    )
