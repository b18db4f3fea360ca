"""Our searches with Whisper's decoder find the texts that transformers' `generate` finds."""

from __future__ import annotations

import pytest
import torch
from transformers import GenerationMixin

from steps.lang.pretrained import describe_tokens, load_backend
from steps.nets.heads import build_head, head_config
from steps.search.attention import attention_beam_search, attention_greedy

MOST = 30  # tokens


@torch.no_grad()
@pytest.mark.parametrize("beam", [1, 2, 5])
def test_texts_are_transformers(tiny_whisper, beam):
    folder, theirs = tiny_whisper
    backend = load_backend(folder / "tokenizer.json")
    end = backend.token_to_id("<|endoftext|>")
    ids = describe_tokens(backend, None, end, True)[1]["ids"]
    head = build_head(head_config("attention", {"lang": "x", "path": str(folder)}), 16, len(ids)).eval()
    head.load_pretrained(ids)
    head.suppress([2])  # <unk>, which is no token of theirs
    torch.manual_seed(0)
    memory, lens = 2 * torch.randn(12, 150, 16), torch.full((12,), 150)
    prompt = [backend.token_to_id(token) for token in ("<|startoftranscript|>", "<|fr|>", "<|notimestamps|>")]
    prompts = torch.tensor([[ids.index(token) for token in prompt]] * 12)
    if beam == 1:
        found = attention_greedy(head, memory, lens, prompts, max_tokens=MOST)
    else:
        found = attention_beam_search(head, memory, lens, prompts, beam, length_penalty=0.0, max_tokens=MOST)
    options = {"num_beams": beam, "do_sample": False, "length_penalty": 0.0, "max_new_tokens": MOST}
    from transformers.modeling_outputs import BaseModelOutput

    expected = GenerationMixin.generate(
        theirs,
        encoder_outputs=BaseModelOutput(memory),
        decoder_input_ids=torch.tensor([prompt] * 12),
        **options,
    )
    texts = [row[len(prompt) :].tolist() for row in expected]
    texts = [row[: row.index(end)] if end in row else row for row in texts]
    assert len({tuple(row) for row in texts}) > 5 and sum(0 < len(row) < MOST for row in texts) > 5
    assert [[ids[token] for token in hypotheses[0].tokens] for hypotheses in found] == texts
