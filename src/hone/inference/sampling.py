"""From logits to the next token, by hand: temperature, top-k, top-p, and the draw.

Each filter takes logits (…, V) and returns logits (…, V) in which tokens that cannot be drawn are -inf; the softmax of
what is left is the distribution. For `decoding.decode`, and for loops of one's own (`examples/plain_loop.py`).

>>> scores = top_p(top_k(with_temperature(torch.tensor([2.0, 1.0, 0.0]), 0.7), 2), 0.9)    # doctest: +SKIP
>>> int(sample(scores, torch.Generator().manual_seed(0)))                                  # doctest: +SKIP
0
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator, Tensor

NEVER = float("-inf")


def with_temperature(logits: "Tensor", temperature: float) -> "Tensor":
    """Logits over the temperature: below 1 the likely become likelier, above 1 all become more alike.

    0 is the limit: only the likeliest token is left, of equals the one with the lowest id.

    Raises:
        ValueError: a negative temperature, or none at all (NaN).
    """
    import torch

    if not temperature >= 0:
        raise ValueError(f"temperature is {temperature}, expected 0 or more")
    if temperature < torch.finfo(logits.dtype).tiny:  # a divisor that would be rounded to 0
        best = logits.argmax(dim=-1, keepdim=True)
        return torch.full_like(logits, NEVER).scatter(-1, best, logits.gather(-1, best))
    # relative to the largest: the same distribution, and a tiny temperature overflows to -inf, never to NaN
    top = logits.amax(dim=-1, keepdim=True)
    return (logits - top) / temperature + top


def top_k(logits: "Tensor", k: int) -> "Tensor":
    """Keep the k likeliest tokens, and those as likely as the last of them; 0, or more than there are, keeps all.

    Fan, Lewis and Dauphin 2018, arXiv 1805.04833.
    """
    if k < 0:
        raise ValueError(f"top_k is {k}, expected 0 or more")
    if k == 0 or k >= logits.shape[-1]:
        return logits
    least = logits.topk(k, dim=-1).values[..., -1:]
    return logits.masked_fill(logits < least, NEVER)


def top_p(logits: "Tensor", p: float) -> "Tensor":
    """Keep the fewest of the likeliest tokens whose probability together reaches p, one at least.

    Among equals the lower ids are kept. Holtzman et al. 2020, arXiv 1904.09751.
    """
    import torch

    if not 0 <= p <= 1:
        raise ValueError(f"top_p is {p}, expected 0 to 1")
    ordered, ids = logits.sort(dim=-1, descending=True, stable=True)
    # Summed from the unlikeliest up, so that small probabilities are not lost beside large ones: a token goes when it
    # and all below it make up no more than 1 - p.
    rest = ordered.flip(-1).softmax(dim=-1).cumsum(dim=-1).flip(-1)
    goes = rest <= 1 - p
    goes[..., 0] = False
    return logits.masked_fill(torch.zeros_like(goes).scatter(-1, ids, goes), NEVER)


def sample(logits: "Tensor", generator: "Generator | None" = None) -> "Tensor":
    """Draw one token from each distribution: (…, V) to (…) int64. The generator's device is the logits'.

    Raises:
        RuntimeError: a row of -inf or NaN, which is no distribution.
    """
    import torch

    rows = logits.float().reshape(-1, logits.shape[-1]).softmax(dim=-1)
    return torch.multinomial(rows, 1, generator=generator).reshape(logits.shape[:-1])
