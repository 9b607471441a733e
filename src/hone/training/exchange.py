"""Tensors that travel between the processes of a training: gradients once a step, weights once at its beginning."""

from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import nn

BUCKET_BYTES = 32 << 20  # sent at once


def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace each gradient by its sum over the processes; one that had no part in a step adds nothing.

    Sums are taken in float32, in the order of the parameters: the same groups send the same bytes in every step, so
    that a resumed training repeats its sums to the last digit.
    """
    for bucket in _buckets(parameters):
        whole = torch.cat(
            [
                torch.zeros(p.numel(), device=p.device) if p.grad is None else p.grad.detach().float().flatten()
                for p in bucket
            ]
        )
        dist.all_reduce(whole)
        for p, part in zip(bucket, whole.split([p.numel() for p in bucket]), strict=True):
            if p.grad is None:
                p.grad = torch.empty_like(p)
            p.grad.copy_(part.view_as(p))


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    for p in parameters:
        if bucket and 4 * (sum(q.numel() for q in bucket) + p.numel()) > BUCKET_BYTES:
            yield bucket
            bucket = []
        bucket.append(p)
    if bucket:
        yield bucket


def same_everywhere(module: nn.Module) -> None:
    """Give all processes the primary's weights and buffers."""
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            dist.broadcast(tensor.data, src=0)
