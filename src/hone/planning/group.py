"""What each of several processes holds, and what they send to each other, from what one alone would need.

All of it follows from shapes. What a processor or a network makes of it is not foretold: a step of several processes
takes as long as the micro-batches of one, and then as long as its gradients travel.

>>> in_group(footprint(engine, config, task, data), engine, config.launch)            # doctest: +SKIP
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch

from hone.config.sections.launch import LaunchSection
from hone.models.inspect import unwrapped
from hone.planning.memory import Footprint
from hone.training.exchange import BUCKET_BYTES
from hone.training.sharding import blocks_of
from hone.training.trainer import HoneTrainer


def in_group(alone: Footprint, engine: HoneTrainer, launch: LaunchSection) -> Footprint:
    """The memory of each process of a group, where one alone needs `alone` for what `engine` does."""
    if not launch.asks_for_several:
        return alone
    here = launch.nproc_per_node or 1
    alone = replace(alone, processes=launch.processes, here=here, on_cpu=engine.args.device.type == "cpu")
    model: Any = engine.model
    passes = engine.args.gradient_accumulation_steps
    sent = sent_per_step(model, launch.processes, passes=passes, cut=launch.cuts, gloo=alone.on_cpu)
    held = alone.weights + alone.gradients + alone.optimizer
    if not launch.cuts:
        training = max(alone.training, held + _bucket(model))
        return replace(alone, sent=sent, training=training, total=_total(alone, training, alone.evaluation))
    share, gathered = -(-held // launch.processes), _gathered(model)
    training = max(alone.training - held, 0) + share + gathered
    # the base is measured before the cut; between the steps the first process has a whole copy beside its share
    kept = -(-(alone.weights + alone.optimizer) // launch.processes)
    evaluation = alone.evaluation and alone.evaluation - alone.optimizer + kept
    return replace(
        alone,
        sent=sent,
        weights=-(-alone.weights // launch.processes),
        gradients=-(-alone.gradients // launch.processes),
        optimizer=-(-alone.optimizer // launch.processes),
        gathered=gathered,
        copied=alone.weights,
        training=training,
        evaluation=evaluation,
        total=_total(alone, training, evaluation),
    )


def _total(alone: Footprint, training: int, evaluation: int) -> int:
    return max(alone.loading, max(training, evaluation) + alone.gaps)


def sent_per_step(model: Any, processes: int, *, passes: int, cut: bool, gloo: bool) -> int:
    """Bytes that each process sends in a step, and receives as many: those of a ring (Patarasuk 2009).

    `benchmarks/processes.py --cost` counts the same to 0.3 %.

    Whole: a sum of the gradients in float32, once a step. Cut: in every pass a block's weights are put together
    forward and again backward, those outside of the blocks once, and the gradients are summed, each process for its
    part; gloo, on processors, sums all of them in each.

    Args:
        passes: micro-batches of each process in a step.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    others = (processes - 1) / processes
    if not cut:
        return int(2 * others * 4 * sum(p.numel() for p in trained))
    in_blocks = sum(_bytes(block.parameters()) for block in blocks_of(unwrapped(model)))
    return int(passes * others * (_bytes(model.parameters()) + in_blocks + (2 if gloo else 1) * _bytes(trained)))


def _gathered(model: Any) -> int:
    """Whole weights and gradients that are there during a pass: two blocks, and what is in none."""
    blocks = [list(block.parameters()) for block in blocks_of(unwrapped(model))]
    inside = {id(p) for block in blocks for p in block}
    root = [p for p in model.parameters() if id(p) not in inside]
    largest = max(blocks, key=_bytes, default=[])
    trained = [p for p in [*largest, *root] if p.requires_grad]
    return 2 * _bytes(largest) + _bytes(root) + _bytes(trained)


def _bucket(model: Any) -> int:
    """Gradients that are sent at once, in float32."""
    return max(BUCKET_BYTES, max((4 * p.numel() for p in model.parameters() if p.requires_grad), default=0))


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
