"""From logits to the next token, by hand: temperature, top-k, top-p, and the draw.

Each filter takes logits (…, V) and returns logits (…, V) in which tokens that cannot be drawn are -inf; the softmax of
what is left is the distribution. For `engine.Engine`, and for loops of one's own (`examples/plain_loop.py`).

>>> next_tokens(torch.tensor([[2.0, 1.0, 0.0]]), GenerateSection(temperature=0.7, top_k=2), [random.Random(0)])
[1]
"""

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hone.config.sections.generate import GenerateSection
from hone.errors import HoneError
from hone.inference.native import drawn, draws_from

NEVER = float("-inf")


@dataclass(frozen=True)
class Rule:
    """How a row's tokens are drawn. min_p: tokens less likely than this share of the likeliest one's are dropped."""

    settings: GenerateSection
    draws: random.Random
    min_p: float = 0.0


def next_tokens(
    logits: Tensor, settings: GenerateSection, draws: Sequence[random.Random], min_p: float = 0.0
) -> list[int]:
    """One token for each row of logits (B, V): the likeliest at temperature 0, else drawn with that row's generator.

    Raises:
        HoneError: logits that are NaN.
    """
    if logits.isnan().any():
        raise _not_numbers()
    if settings.temperature == 0:
        greedy: list[int] = logits.argmax(-1).tolist()
        return greedy
    kept = top_k(with_temperature(logits.float(), float(settings.temperature)), settings.top_k)
    if settings.top_p < 1:
        kept = top_p(kept, float(settings.top_p))
    if min_p > 0:
        kept = kept.masked_fill(kept < kept.amax(-1, keepdim=True) + math.log(min_p), NEVER)
    exact = torch.float32 if logits.device.type == "mps" else torch.float64
    reached = kept.to(exact).softmax(-1).cumsum(-1)
    aims = torch.tensor([[one.random()] for one in draws], dtype=exact, device=logits.device) * reached[:, -1:]
    found: list[int] = torch.searchsorted(reached, aims, right=True).clamp(max=logits.shape[-1] - 1)[:, 0].tolist()
    return found


def each_by_its_rule(logits: Tensor, rules: Sequence[Rule]) -> list[int]:
    """One token for each row of logits (B, V), as `next_tokens` draws it; by the compiled kernel where there is one.

    The kernel adds in another order: where a draw falls within 1e-15 of the border of two tokens it may take the other,
    and top-p decides in double precision whether the last token is needed.

    Raises:
        HoneError: logits that are NaN.
    """
    if draws_from(logits):
        tokens = drawn(logits, [_numbers(rule) for rule in rules])
        if tokens is None:
            raise _not_numbers()
        return tokens
    groups: dict[tuple[float, int, float, float], list[int]] = {}
    for i, rule in enumerate(rules):
        s = rule.settings
        groups.setdefault((s.temperature, s.top_k, s.top_p, rule.min_p), []).append(i)
    tokens = [0] * len(rules)
    for (*_, min_p), places in groups.items():
        chosen = logits if len(groups) == 1 else logits[places]
        found = next_tokens(chosen, rules[places[0]].settings, [rules[i].draws for i in places], min_p)
        for i, token in zip(places, found, strict=True):
            tokens[i] = token
    return tokens


def _numbers(rule: Rule) -> tuple[float, float, float, float, int]:
    s = rule.settings
    if s.temperature == 0:
        return 0.0, NEVER, 1.0, 0.0, 0
    least = math.log(rule.min_p) if rule.min_p > 0 else NEVER
    return s.temperature, least, s.top_p, rule.draws.random(), s.top_k


def _not_numbers() -> HoneError:
    return HoneError(
        "the model's scores are not numbers (NaN)",
        fix="its weights are damaged, or overflow in half precision: train it again with a lower learning_rate",
    )


def with_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Logits over the temperature: below 1 the likely become likelier, above 1 all become more alike.

    0 is the limit: only the likeliest token is left, of equals the one with the lowest id.

    Raises:
        ValueError: a negative temperature, or none at all (NaN).
    """
    if not temperature >= 0:
        raise ValueError(f"temperature is {temperature}, expected 0 or more")
    if temperature < torch.finfo(logits.dtype).tiny:  # a divisor that would be rounded to 0
        best = logits.argmax(dim=-1, keepdim=True)
        return torch.full_like(logits, NEVER).scatter(-1, best, logits.gather(-1, best))
    # relative to the largest: the same distribution, and a tiny temperature overflows to -inf, never to NaN
    top = logits.amax(dim=-1, keepdim=True)
    return (logits - top) / temperature + top


def top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k likeliest tokens, and those as likely as the last of them; 0, or more than there are, keeps all.

    Fan, Lewis and Dauphin 2018, arXiv 1805.04833.
    """
    if k < 0:
        raise ValueError(f"top_k is {k}, expected 0 or more")
    if k == 0 or k >= logits.shape[-1]:
        return logits
    least = logits.topk(k, dim=-1).values[..., -1:]
    return logits.masked_fill(logits < least, NEVER)


def top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the fewest of the likeliest tokens whose probability together reaches p, one at least.

    Among equals the lower ids are kept. Holtzman et al. 2020, arXiv 1904.09751.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"top_p is {p}, expected 0 to 1")
    ordered, ids = logits.sort(dim=-1, descending=True, stable=True)
    # Summed from the unlikeliest up, so that small probabilities are not lost beside large ones: a token goes when it
    # and all below it make up no more than 1 - p.
    rest = ordered.flip(-1).softmax(dim=-1).cumsum(dim=-1).flip(-1)
    goes = rest <= 1 - p
    goes[..., 0] = False
    return logits.masked_fill(torch.zeros_like(goes).scatter(-1, ids, goes), NEVER)


def penalized(
    logits: Tensor,
    drawn: Sequence[int],
    prompt: Sequence[int],
    *,
    presence: float = 0.0,
    frequency: float = 0.0,
    repetition: float = 1.0,
    bias: Mapping[int, float] | None = None,
) -> Tensor:
    """Logits (V,) with less for tokens that were there before, and `bias` added to those it names.

    presence, frequency: taken off once, and for each time, of tokens drawn so far (OpenAI's API). repetition: of tokens
    in prompt and answer, positive logits are divided by it and negative ones multiplied (Keskar et al. 2019,
    arXiv 1909.05858).
    """
    logits = logits.clone()
    if repetition != 1 and (seen := sorted({*prompt, *drawn})):
        found = logits[seen]
        logits[seen] = torch.where(found > 0, found / repetition, found * repetition)
    if (presence or frequency) and drawn:
        counts = Counter(drawn)
        taken = [presence + frequency * n for n in counts.values()]
        logits[list(counts)] -= torch.tensor(taken, dtype=logits.dtype, device=logits.device)
    if bias:
        logits[list(bias)] += torch.tensor(list(bias.values()), dtype=logits.dtype, device=logits.device)
    return logits
