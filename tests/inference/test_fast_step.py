"""The decode step written by hand: transformers' scores for each family, with adapters, and where it steps aside."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from hone.config.sections.generate import GenerateSection
from hone.inference.engine import Engine, Request, answer_all
from hone.inference.fast_step import Plan, Stretch, agrees, scores
from hone.inference.padded import PaddedBatches
from hone.inference.slots import Slots, common
from hone.inference.stream import Answer, AnswerRule
from hone.inference.weights import Unsuitable, Weights, weights_of

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
GROUPED = {"hidden_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
FAMILIES: list[tuple[str, dict[str, Any]]] = [
    ("gpt2", {}),
    ("gpt2", {"activation_function": "gelu", "tie_word_embeddings": False, "n_inner": 48}),
    ("gpt2", {"activation_function": "relu", "n_head": 4}),
    ("llama", {}),
    ("llama", {**GROUPED, "head_dim": 8, "tie_word_embeddings": True}),
    ("llama", {**GROUPED, "attention_bias": True, "mlp_bias": True, "rope_parameters": LLAMA3}),
    ("llama", {"hidden_act": "gelu"}),
    ("qwen2", GROUPED),
    ("qwen2", {"tie_word_embeddings": True}),
    ("mistral", {**GROUPED, "sliding_window": None}),
]


@pytest.fixture
def wild(tiny_model: Callable[..., Any]) -> Callable[..., Any]:
    """A tiny model whose biases and norms are random too: their initial zeros and ones would hide a missing one."""

    def build(kind: str, **more: Any) -> Any:
        model = tiny_model(kind, **more)
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter.add_(torch.randn_like(parameter) / 3)
        return model

    return build


def read_in_pieces(weights: Weights, rows: list[list[int]], cuts: list[list[int]]) -> list[torch.Tensor]:
    """Scores of all tokens of rows in slots 0, 1, …: each row's prompt read in pieces, the last ones token by token.

    cuts: where each row's pieces begin; from the last cut on it is fed token by token, beside the others.
    """
    kept = torch.zeros((len(weights.layers), len(rows), 64, 2, weights.n_kept, weights.head_dim))
    found: list[list[torch.Tensor]] = [[] for _ in rows]
    for slot, (row, begins) in enumerate(zip(rows, cuts)):
        for a, b in zip([0, *begins], begins):
            where = list(range(a, b))
            plan = Plan(row[a:b], where, [slot] * len(where), [], [Stretch(slot, 0, b - a, a)], list(range(b - a)))
            found[slot].append(scores(weights, kept, plan))
    read = [begins[-1] for begins in cuts]
    while any(n < len(row) for n, row in zip(read, rows)):
        growing = [slot for slot, row in enumerate(rows) if read[slot] < len(row)]
        assert growing == list(range(len(growing))), "the longest way to go comes first"
        where = [read[slot] for slot in growing]
        ids = [rows[slot][read[slot]] for slot in growing]
        out = scores(weights, kept, Plan(ids, where, growing, [n + 1 for n in where], [], growing))
        for slot in growing:
            found[slot].append(out[slot : slot + 1])
            read[slot] += 1
    return [torch.cat(pieces) for pieces in found]


@pytest.mark.parametrize(("kind", "more"), FAMILIES)
def test_scores_are_those_of_transformers(kind: str, more: dict[str, Any], wild: Callable[..., Any]) -> None:
    """Whole prompts, prompts in stretches, and rows of unequal length side by side; all scores, float32."""
    model = wild(kind, **more)
    rows = [[(7 * i * i + k) % 300 + 3 for i in range(n)] for k, n in enumerate((40, 33, 20))]
    with torch.inference_mode():
        weights = weights_of(model)
        found = read_in_pieces(weights, rows, [[10, 11, 24], [20], [1, 5, 9, 10]])
        for row, own in zip(rows, found):
            plain = model(torch.tensor([row])).logits[0]
            assert (own - plain).abs().max() < 1e-4 * plain.abs().max()
        assert agrees(weights, model, rows[0]) and agrees(weights, model, [5])


def test_weights_are_the_models_own(wild: Callable[..., Any]) -> None:
    """Nothing is copied: what training changes later is what a new engine, and this one, sees."""
    for kind in ("gpt2", "llama"):
        model = wild(kind)
        weights = weights_of(model)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.1)
        with torch.inference_mode():
            assert agrees(weights, model, [5, 6, 7])


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen2"])
def test_adapters_share_the_base(kind: str, wild: Callable[..., Any]) -> None:
    """Two adapters and the base, from one model in memory: each engine says what its own adapter says."""
    targets = ["c_attn", "c_proj"] if kind == "gpt2" else ["q_proj", "v_proj", "down_proj"]
    peft = get_peft_model(wild(kind), LoraConfig(r=4, lora_alpha=8, target_modules=targets), adapter_name="one")
    peft.add_adapter("two", LoraConfig(r=2, target_modules=targets, use_rslora=True, modules_to_save=["lm_head"]))
    torch.manual_seed(2)
    for name, parameter in peft.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_()
        if "modules_to_save" in name:
            parameter.data.mul_(2)
    peft.eval()
    ids = list(range(5, 25))
    with torch.inference_mode():
        sides: dict[str, tuple[Weights, torch.Tensor]] = {}
        for name in ("one", "two"):
            peft.set_adapter(name)
            sides[name] = weights_of(peft), peft(torch.tensor([ids])).logits[0]
        with peft.disable_adapter():
            sides["base"] = weights_of(peft), peft(torch.tensor([ids])).logits[0]
        for weights, plain in sides.values():
            own = read_in_pieces(weights, [ids], [[7]])[0]
            assert (own - plain).abs().max() < 1e-4 * plain.abs().max()
            assert weights.embed.data_ptr() == sides["base"][0].embed.data_ptr()
    spread = sides["base"][1].std()
    assert all((sides[name][1] - sides["base"][1]).abs().max() > spread / 10 for name in ("one", "two"))


def refused(model: Any) -> str:
    with pytest.raises(Unsuitable) as caught:
        weights_of(model)
    return str(caught.value)


def test_what_is_not_written_down_is_refused(tiny_model: Callable[..., Any]) -> None:
    assert "sliding" in refused(tiny_model("mistral"))
    assert "GPTNeoX" in refused(tiny_model("gpt_neox"))
    assert "attention" in refused(tiny_model("gpt2", scale_attn_by_inverse_layer_idx=True))
    assert "dynamic" in refused(
        tiny_model("llama", rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0})
    )
    dora: PeftModel = get_peft_model(tiny_model("llama"), LoraConfig(target_modules=["q_proj"], use_dora=True))
    assert "more than two products" in refused(dora)
    half = tiny_model("llama")
    half.lm_head.half()
    assert "several types" in refused(half)


def test_a_model_that_says_otherwise_is_left_to_transformers(
    tiny_model: Callable[..., Any], tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody has changed a module's forward: weights alone do not tell, the first prompt does."""
    model = tiny_model("gpt2")
    mlp = model.transformer.h[0].mlp
    plain = mlp.forward
    mlp.forward = lambda x: 2 * plain(x)
    expected = model.generate(
        torch.tensor([[5, 6, 7]]), attention_mask=torch.ones(1, 3), max_new_tokens=9, do_sample=False, eos_token_id=-1
    )[0, 3:]
    answer = Answer(tokenizer, [], AnswerRule([], [], 9))
    engine = Engine(model)
    with caplog.at_level(logging.INFO, logger="hone"):
        answer_all(engine, [Request([5, 6, 7], answer, GenerateSection())])
    assert answer.ids == expected.tolist()
    assert "does not agree" in caplog.text and isinstance(engine._rows, PaddedBatches)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of each pass."""
    from hone.inference import slots

    seen: list[int] = []

    def spied(weights: Weights, kept: torch.Tensor, plan: Plan) -> torch.Tensor:
        seen.append(len(plan.ids))
        return scores(weights, kept, plan)

    monkeypatch.setattr(slots, "scores", spied)
    return seen


def requests(tokenizer: Any, prompts: list[list[int]], room: int) -> list[Request]:
    return [Request(prompt, Answer(tokenizer, [], AnswerRule([], [], room)), GenerateSection()) for prompt in prompts]


def test_what_was_read_is_not_read_again(tiny_model: Callable[..., Any], tokenizer: Any, passes: list[int]) -> None:
    """Many answers to one prompt, then a conversation that goes on, then another one between."""
    engine, prompt = Engine(tiny_model("gpt2")), list(range(10, 40))
    answer_all(engine, requests(tokenizer, [prompt] * 3, 2))
    assert passes == [30, 1 + 2, 2], "the second and the third row wait for the first, and read their last token"
    for other in ([50, 51, 52], [60, 61]):
        passes.clear()
        answer_all(engine, requests(tokenizer, [other], 2))
        assert passes == [len(other), 1]
    passes.clear()
    [first] = asked = requests(tokenizer, [[*range(10, 40), 7, 8]], 3)
    answer_all(engine, asked)
    assert passes == [2, 1, 1]
    passes.clear()
    answer_all(engine, requests(tokenizer, [[*first.prompt, *first.answer.ids, 9]], 1))
    assert passes == [2], "the last token of the answer, and the new one"


def test_rows_that_grow_do_not_wait_for_a_long_prompt(
    tiny_model: Callable[..., Any], tokenizer: Any, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hone.inference import slots

    monkeypatch.setattr(slots, "BESIDE_OTHERS", 16)
    engine = Engine(tiny_model("llama"))
    short, long = requests(tokenizer, [[5, 6], list(range(3, 103))], 12)
    row = engine.add(short)
    engine.step()
    engine.add(long)
    for _ in range(6):
        assert [step.row for step in engine.step()] == [row]
    assert passes == [2, *[17] * 6]
    assert len(engine.step()) == 2 and passes[-1] == 1 + 100 - 6 * 16


def test_memory_is_made_for_what_comes(tiny_model: Callable[..., Any], tokenizer: Any) -> None:
    """Slots of the length that is asked for; longer ones, and so fewer, when a longer request comes."""
    model = tiny_model("llama")
    engine = Engine(model, cache_bytes=2 * 2 * 16 * 4 * 64 * 4)  # keys and values of four slots of 64 tokens
    answer_all(engine, requests(tokenizer, [[5], [6, 7]], 4))
    slots = engine._rows
    assert isinstance(slots, Slots) and slots._kept.shape[1:3] == (4, 64)
    mixed = requests(tokenizer, [[5], [6, 7], list(range(3, 103)), [8]], 20)
    answer_all(engine, mixed)
    assert slots._kept.shape[1:3] == (2, 128)
    assert all(len(one.answer.ids) == 20 for one in mixed)
    alone = requests(tokenizer, [list(range(3, 103))], 20)
    answer_all(Engine(model, cache_bytes=1), alone)
    assert alone[0].answer.ids == mixed[2].answer.ids, "one row always fits"


@pytest.mark.parametrize(
    ("read", "prompt", "n"),
    [([], [1], 0), ([1, 2, 3], [1, 2, 3], 2), ([1, 2, 9, 4], [1, 2, 3, 4], 2), ([2], [1, 2], 0)],
)
def test_common(read: list[int], prompt: list[int], n: int) -> None:
    assert common(read, prompt) == n


def test_a_deep_model_in_bfloat16_is_known_by_all_of_its_scores(tiny_model: Callable[..., Any]) -> None:
    """Single scores of it stray by more than the tolerance, on either side; a wrong step strays in all of them."""
    model = tiny_model("llama", num_hidden_layers=24)
    for parameter in model.parameters():
        parameter.data *= 3 if parameter.dim() > 1 else 1
    model.to(torch.bfloat16)
    ids = list(range(5, 21))
    with torch.inference_mode():
        weights = weights_of(model)
        assert agrees(weights, model, ids)
        other = tiny_model("llama", num_hidden_layers=24).to(torch.bfloat16)
        assert not agrees(weights_of(other), model, ids)
