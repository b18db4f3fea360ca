from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LogitsProcessor, LogitsProcessorList, WhisperConfig

from steps.lang.prompts import FILL, SLOT
from steps.nets.head import Head
from steps.nets.heads import build_head, head_config
from steps.nets.llm_head import right_aligned
from steps.prepare.dataset import Targets, pad_prompts, pad_targets
from steps.search.attention import attention_beam_search, attention_greedy
from tests.steps.tiny_llm import TEXTS, lang_folder, make_llm
from utils.errors import UserError

DIM, FRAMES = 6, torch.tensor([9, 4, 13])
PROMPTS = [[5, 7, SLOT, 9], [5, SLOT, 9, 11, 12, 13], [SLOT, 8]]
TOKENS = [[20, 30, 40], [21], [22, 33, 44, 55, 66]]
PROJECTOR = {"name": "mlp", "factor": 2, "hidden_dim": 16}


@pytest.fixture(scope="module")
def llm(tmp_path_factory) -> Path:
    return make_llm(tmp_path_factory.mktemp("llm"))


@pytest.fixture(scope="module")
def tokenizer(llm, tmp_path_factory):
    return lang_folder(llm, tmp_path_factory.mktemp("lang"), TEXTS[:1])


def make(llm: Path, tokenizer, **values) -> Head:
    """The head with the language model's own weights."""
    values = {"target": "translation.fr", "lang": "data/lang", "path": str(llm), "projector": PROJECTOR, **values}
    torch.manual_seed(3)
    head = build_head(head_config("llm", values), DIM, tokenizer.vocab_size)
    head.load_pretrained(tokenizer.ids)
    return head


def speech() -> Tensor:
    return torch.randn(3, 13, DIM, generator=torch.Generator().manual_seed(4)) * 2


def targets(rows: list[int]) -> Targets:
    return pad_targets([TOKENS[i] for i in rows], [PROMPTS[i] for i in rows])


def spelled_out(head: Head, i: int) -> tuple[Tensor, int]:
    """The vectors that utterance i's request and text are `(1, length, dim)`, and the request's length."""
    embed = head.llm.get_input_embeddings()
    x, lens = head.projector(speech()[i : i + 1, : FRAMES[i]], FRAMES[i : i + 1])
    slot = PROMPTS[i].index(SLOT)
    before, after = (
        embed(torch.tensor(part, dtype=torch.int64)) for part in (PROMPTS[i][:slot], PROMPTS[i][slot + 1 :])
    )
    request = torch.cat((before, x[0, : lens[0]], after))
    return torch.cat((request, embed(torch.tensor(TOKENS[i])), embed(torch.tensor([1]))))[None], len(request)


def test_the_loss_is_transformers_own_on_the_answer(llm, tokenizer):
    head, expected = make(llm, tokenizer), 0.0
    for i in range(3):
        x, request = spelled_out(head, i)
        labels = torch.tensor([[-100] * request + TOKENS[i] + [1]])
        expected += head.llm(inputs_embeds=x, labels=labels).loss * (len(TOKENS[i]) + 1)  # theirs is a mean
    loss = head(speech(), FRAMES, targets([0, 1, 2]))["llm"]
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-4)


def test_with_all_tokens_the_model_is_the_one_that_was_given(llm, tokenizer):
    head, theirs = make(llm, tokenizer), AutoModelForCausalLM.from_pretrained(str(llm))
    ours = torch.tensor([[9, 40, 3, 77]])
    ids = torch.tensor(tokenizer.ids)
    logits, expected = head.llm(input_ids=ours).logits, theirs(input_ids=ids[ours]).logits
    known = ids >= 0
    torch.testing.assert_close(logits[..., known], expected[..., ids[known]], rtol=1e-5, atol=1e-5)
    assert len(ids) < expected.shape[-1]  # rows that no token has are left out


def test_an_untied_model_has_its_own_output_rows(tokenizer, tmp_path):
    llm = make_llm(tmp_path, tie_word_embeddings=False)
    head, theirs = make(llm, tokenizer), AutoModelForCausalLM.from_pretrained(str(llm))
    known = torch.tensor(tokenizer.ids) >= 0
    chosen = torch.tensor(tokenizer.ids)[known]
    assert torch.equal(head.llm.lm_head.weight[known], theirs.lm_head.weight[chosen])
    assert torch.equal(head.llm.model.embed_tokens.weight[known], theirs.model.embed_tokens.weight[chosen])


def test_utterances_without_a_target_count_nothing(llm, tokenizer):
    head = make(llm, tokenizer)
    some = targets([0, 1, 2])
    some.present[1] = False
    alone = sum(head(speech()[[i]], FRAMES[[i]], targets([i]))["llm"] for i in (0, 2))
    torch.testing.assert_close(head(speech(), FRAMES, some)["llm"], alone, rtol=1e-5, atol=1e-4)
    some.present[:] = False
    nothing = head(speech().requires_grad_(), FRAMES, some)["llm"]
    nothing.backward()
    assert nothing == 0 and all(p.grad is not None for p in head.parameters() if p.requires_grad)


TRAINED = {
    "frozen": ({}, set()),
    "lora": ({"lora": {"rank": 2}}, {"q_proj.lora_A", "q_proj.lora_B", "v_proj.lora_A", "v_proj.lora_B"}),
    "whole": ({"train_llm": True}, {"embed_tokens", "q_proj", "norm"}),
}


@pytest.mark.parametrize("kind", TRAINED)
def test_what_is_trained_and_what_is_saved(llm, tokenizer, kind):
    values, some = TRAINED[kind]
    head = make(llm, tokenizer, **values)
    trained = {name for name, p in head.named_parameters() if p.requires_grad}
    assert {name for name in trained if name.startswith("projector.")} == {
        name for name, _ in head.named_parameters() if name.startswith("projector.")
    }
    inside = {name for name in trained if name.startswith("llm.")}
    assert all(any(part in name for name in inside) for part in some) and bool(inside) == bool(some)
    state = set(head.state_dict())
    assert {"llm.lm_head.weight", "projector.norm.weight"} <= state
    # all that is neither an adapter nor the projector comes with the language model; shared weights by both names
    assert head.pretrained_names() == {n for n in state if ".lora_" not in n and not n.startswith("projector.")}
    assert not {name for name in trained if ".lora_" in name} & head.pretrained_names()


@pytest.mark.parametrize("kind", TRAINED)
def test_gradient_checkpointing_changes_nothing(llm, tokenizer, kind):
    gradients = []
    for checkpointing in (False, True):
        head = make(llm, tokenizer, gradient_checkpointing=checkpointing, **TRAINED[kind][0]).train()
        head(speech(), FRAMES, targets([0, 1, 2]))["llm"].backward()
        gradients.append({name: p.grad for name, p in head.named_parameters() if p.requires_grad})
    assert (
        all(value.isfinite().all() for value in gradients[0].values()) and gradients[0]["projector.norm.weight"].any()
    )
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)


def test_in_training_a_language_model_says_what_it_says(tokenizer, tmp_path):
    llm = make_llm(tmp_path, attention_dropout=0.5)
    head = make(llm, tokenizer, lora={"rank": 2})
    losses = [head.train(mode)(speech(), FRAMES, targets([0, 1, 2]))["llm"] for mode in (True, False)]
    assert losses[0] == losses[1]


def test_the_projector_begins_with_vectors_as_large_as_the_embeddings(llm, tokenizer):
    head = make(llm, tokenizer)
    vectors, _ = head.projector(speech(), torch.tensor([13, 13, 13]))
    torch.testing.assert_close(vectors.std(), head.llm.get_input_embeddings().weight.std(), rtol=0.1, atol=0)


@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision(llm, tokenizer, autocast):
    whole, half = (make(llm, tokenizer, dtype=dtype, lora={"rank": 2}) for dtype in ("float32", "bf16"))
    assert half.llm.model.norm.weight.dtype == torch.bfloat16
    assert {p.dtype for p in half.parameters() if p.requires_grad} == {torch.float32}
    expected = whole(speech(), FRAMES, targets([0, 1, 2]))["llm"]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = half(speech(), FRAMES, targets([0, 1, 2]))["llm"]
        found = search(half, [0, 1, 2])
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=0.05, atol=0)
    assert loss.dtype == torch.float32 and len(found) == 3


def search(head: Head, rows: list[int], beam: int = 1, **options) -> list[list]:
    with torch.inference_mode():
        arguments = (head.eval(), speech()[rows], FRAMES[rows], pad_prompts([PROMPTS[i] for i in rows]))
        if beam == 1:
            return attention_greedy(*arguments, **options)
        return attention_beam_search(*arguments, beam, **{"length_penalty": 0.0, **options})


class End(LogitsProcessor):
    """After so many tokens nothing but the end may follow."""

    def __init__(self, longest: int) -> None:
        self.longest = longest

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        others = (torch.arange(scores.shape[1]) != 1) & (input_ids.shape[1] >= self.longest)
        return scores.masked_fill(others, float("-inf"))


@pytest.mark.parametrize("beam", [1, 3])
def test_searches_are_transformers_generate(llm, tokenizer, beam):
    head = make(llm, tokenizer)
    head.suppress(list(tokenizer.suppressed))
    found = search(head, [0, 1, 2], beam, max_tokens=7)
    lengths = set()
    for i in range(3):
        x, request = spelled_out(head, i)
        longest = min(7, int(FRAMES[i]))
        generated = head.llm.generate(
            inputs_embeds=x[:, :request],
            attention_mask=torch.ones(1, request, dtype=torch.int64),
            max_new_tokens=longest + 1,
            logits_processor=LogitsProcessorList([End(longest)]),
            suppress_tokens=head.suppressed,
            num_beams=beam,
            do_sample=False,
            pad_token_id=1,
            eos_token_id=1,
            **({"early_stopping": "never", "length_penalty": 0.0} if beam > 1 else {}),
        )
        expected = generated[0].tolist()
        assert [*found[i][0].tokens, 1] == expected[: expected.index(1) + 1]
        lengths.add(len(found[i][0].tokens))
    assert max(lengths) == 7


@pytest.mark.parametrize("beam", [1, 3])
def test_batch_equals_single_and_scores_are_the_losses(llm, tokenizer, beam):
    head = make(llm, tokenizer)
    head.suppressed = []  # so that scores are those of the loss
    options = {"max_tokens": 5, **({"min_tokens": 2} if beam > 1 else {})}
    found = search(head, [0, 1, 2], beam, **options)
    for i in range(3):
        (alone,) = search(head, [i], beam, **options)
        assert alone[0].tokens == found[i][0].tokens and alone[0].score == pytest.approx(found[i][0].score, abs=1e-4)
        said = pad_targets([alone[0].tokens], [PROMPTS[i]])
        loss = head(speech()[[i], : FRAMES[i]], FRAMES[[i]], said)["llm"]
        assert float(loss.detach()) == pytest.approx(-alone[0].score, abs=1e-3)
        assert sum(alone[0].token_scores) > alone[0].score  # the end costs too


def test_an_utterance_without_frames_is_the_request_alone(llm, tokenizer):
    head = make(llm, tokenizer)
    loss = head(speech(), torch.tensor([9, 0, 13]), targets([0, 1, 2]))["llm"]
    words = [index for index in PROMPTS[1] if index != SLOT]
    labels = torch.tensor([[-100] * len(words) + [21, 1]])
    silent = head.llm(input_ids=torch.tensor([[*words, 21, 1]]), labels=labels).loss * 2
    others = head(speech()[[0, 2]], FRAMES[[0, 2]], targets([0, 2]))["llm"]
    torch.testing.assert_close(loss, silent + others, rtol=1e-5, atol=1e-4)
    with torch.inference_mode():
        arguments = (speech()[[1]], torch.tensor([0]), pad_prompts([PROMPTS[1]]))
        assert len(attention_greedy(head.eval(), *arguments)[0][0].tokens) <= 1


def test_a_text_ends_where_speech_and_request_leave_no_room(llm, tokenizer):
    head = make(llm, tokenizer).eval()
    head.suppressed = [1]  # would go on for ever
    room = [2, 4, 3]
    request = max(len(prompt) for prompt in PROMPTS)
    head.positions = 40
    head.speech_positions = dict(zip(FRAMES.tolist(), [40 - request - n for n in room], strict=True)).__getitem__
    found = search(head, [0, 1, 2], 1, max_length_ratio=99.0)
    assert [len(hypotheses[0].tokens) for hypotheses in found] == room


def test_special_tokens_are_not_said(llm, tokenizer):
    head = make(llm, tokenizer)
    with torch.no_grad():  # a model that wants to say nothing else
        head.llm.lm_head.weight[list(tokenizer.suppressed)] *= 30
    head.suppress(list(tokenizer.suppressed))
    said = {token for hypotheses in search(head, [0, 1, 2], 3) for h in hypotheses for token in h.tokens}
    assert said and not said & set(tokenizer.suppressed)


def test_rows_move_to_the_right_in_their_order():
    keep = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 1], [1, 1, 0, 0]]).bool()
    x, mask = right_aligned(torch.arange(12).view(3, 4), keep)
    assert x[mask].tolist() == [0, 2, 7, 8, 9] and mask.tolist() == [[True, True], [False, True], [True, True]]


def test_prompts_are_padded_on_their_left():
    assert pad_prompts([[1, SLOT], [SLOT]]).tolist() == [[1, SLOT], [FILL, SLOT]]


def test_what_does_not_fit_is_one_sentence(llm, tokenizer, tmp_path):
    for ids, complaint in (([-1, 2, 336], "id 336, .* has 336 tokens"), (None, "data/lang has no ids of its tokens")):
        with pytest.raises(UserError, match=complaint):
            make(llm, tokenizer).load_pretrained(ids)
    WhisperConfig().save_pretrained(tmp_path / "whisper")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text('{"model_type": "llamma"}')
    for name in ("whisper", "odd"):
        with pytest.raises(UserError, match=r"no language model that can be used|cannot go on with"):
            make(tmp_path / name, tokenizer)
    with pytest.raises(UserError, match=r"heads\.llm\.path: .* holds no config.json"):
        make(tmp_path, tokenizer)
    with pytest.raises(UserError, match=r"heads\.llm\.lora\.targets: no layer is called linear_q: there are .*q_proj"):
        make(llm, tokenizer, lora={"targets": ["linear_q"]})
    for name, change in (("none", Path.unlink), ("cut", lambda file: file.write_bytes(file.read_bytes()[:2000]))):
        broken = make_llm(tmp_path / name)
        change(broken / "model.safetensors")
        with pytest.raises(UserError, match=r"holds no weights|cannot be read"):
            make(broken, tokenizer)
    with pytest.raises(UserError, match="of 166 tokens and speech vectors is longer than the 160"):
        make(llm, tokenizer)(torch.randn(1, 320, DIM), torch.tensor([320]), targets([1]))


@pytest.mark.parametrize(
    "values, complaint",
    [
        ({"prompt": "translate:"}, "a prompt without the slot for speech"),
        ({"lora": {}, "train_llm": True}, "leave out lora or train_llm"),
        ({"dtype": "bf16", "train_llm": True}, "'train_llm' wants dtype: float32"),
        ({"projector": {"name": "mlpp"}}, "projector"),
        ({"path": None}, "path"),
    ],
)
def test_wrong_configurations_are_named(values, complaint):
    with pytest.raises(UserError, match=complaint):
        head_config("llm", {"target": "text", "lang": "x", "path": "y", "projector": PROJECTOR, **values})
