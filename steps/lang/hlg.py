"""H, L and G put together with k2: what a CTC model is decoded with (Mohri, Pereira and Riley 2008)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from steps.objectives.backend import load_k2

if TYPE_CHECKING:
    import k2


def compose_lg(lexicon: k2.Fsa, grammar: k2.Fsa, tokens: int, first_special: int) -> k2.Fsa:
    """LG, deterministic and without disambiguation symbols: reads tokens, writes words.

    `lexicon` has `#0` loops, `tokens` is how many tokens there are (higher labels are disambiguation symbols), and
    words from `first_special` on (`#0`, `<s>`, `</s>`) are no words.
    """
    k2 = load_k2()
    lg = k2.compose(k2.arc_sort(lexicon), k2.arc_sort(grammar))
    lg = k2.connect(k2.determinize(k2.connect(lg)))
    lg.labels = torch.where(lg.labels >= tokens, 0, lg.labels)
    lg.aux_labels = _without_special(lg.aux_labels, first_special)
    lg = k2.connect(k2.remove_epsilon(lg))
    if not isinstance(lg.aux_labels, torch.Tensor):
        lg.aux_labels = lg.aux_labels.remove_values_eq(0)
    return k2.arc_sort(lg)


def _without_special(words: torch.Tensor | k2.RaggedTensor, first: int) -> torch.Tensor | k2.RaggedTensor:
    """Words a label, or several (ragged), with 0 for those from `first` on."""
    if isinstance(words, torch.Tensor):
        return torch.where(words >= first, 0, words)
    return load_k2().RaggedTensor(words.shape, torch.where(words.values >= first, 0, words.values))


def compose_hlg(lg: k2.Fsa, tokens: int, modified: bool = False) -> k2.Fsa:
    """HLG: reads a label a frame (0: blank), writes words; `tokens` is the attribute of what a frame's label adds.

    `modified`: a repeated token needs no blank between, which makes a smaller graph (k2's modified CTC topology).
    """
    k2 = load_k2()
    h = k2.ctc_topo(tokens - 1, modified=modified)
    return k2.arc_sort(k2.connect(k2.compose(h, lg, inner_labels="tokens")))
