"""CTC scores of texts as they grow: prefix scoring for joint decoding (Watanabe et al. 2017, algorithm 2)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from steps.search.beams import NEG_INF, top_k

CANDIDATES = 3  # times the beam: tokens of each hypothesis for which CTC is asked (ESPnet's pre-beam is 1.5)


class CtcPrefixScorer:
    """Adds CTC's opinion to the attention's for N utterances with `beam` hypotheses each.

    `log_probs (N, T, V)` in nats, `lens (N,)`, blank 0. `forward (N, beam, T + 1, 2)` are the log-probabilities of all
    alignments of a hypothesis that end at a frame (0: before the first) in its last token, and in a blank.
    """

    def __init__(self, log_probs: Tensor, lens: Tensor, beam: int, weight: float, eos: int) -> None:
        beyond = torch.arange(log_probs.shape[1], device=log_probs.device) >= lens.to(log_probs.device)[:, None]
        log_probs = log_probs.float().masked_fill(beyond[..., None], NEG_INF)
        log_probs[..., 0] = log_probs[..., 0].masked_fill(beyond, 0.0)  # nothing changes beyond the end
        self.log_probs, self.weight, self.beam, self.eos = log_probs, weight, beam, eos
        blanks = F.pad(log_probs[..., 0].cumsum(1), (1, 0))
        forward = torch.stack((torch.full_like(blanks, NEG_INF), blanks), dim=2)
        self.forward = forward[:, None].repeat(1, beam, 1, 1)
        self.prefix = torch.zeros(len(lens), beam, device=log_probs.device)
        self.last = torch.zeros(len(lens), beam, dtype=torch.int64, device=log_probs.device)

    def combine(self, scores: Tensor, log_probs: Tensor) -> Tensor:
        """Scores `(N, beam, V)` of each hypothesis and one more token; only its most probable tokens are scored."""
        count = min(CANDIDATES * self.beam, log_probs.shape[2])
        tokens = top_k(log_probs.flatten(0, 1), count)[1].view(*log_probs.shape[:2], count)
        tokens[..., -1] = torch.where((tokens == self.eos).any(2), tokens[..., -1], self.eos)  # the end always may come
        self.tokens, self.extended, gained = tokens, *self._extend(tokens)
        ended = torch.logsumexp(self.forward[:, :, -1], dim=2, keepdim=True)
        self.total = torch.where(tokens == self.eos, ended, gained)
        attention = (1 - self.weight) * log_probs.gather(2, tokens)
        change = (self.total - self.prefix[..., None]).nan_to_num(nan=NEG_INF, neginf=NEG_INF)
        joint = scores[..., None] + attention + self.weight * change
        return torch.full_like(log_probs, NEG_INF).scatter(2, tokens, joint)

    def _extend(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Forward variables `(N, beam, K, T + 1, 2)` of each hypothesis plus each token, and their prefix scores."""
        frames = self.log_probs.shape[1]
        emitted = self.log_probs.gather(2, tokens.flatten(1)[:, None].expand(-1, frames, -1))
        emitted = emitted.view(len(tokens), frames, *tokens.shape[1:]).movedim(1, 0)  # (T, N, beam, K)
        blank = self.log_probs[..., 0].T[:, :, None, None]
        before = torch.logsumexp(self.forward, dim=3)  # (N, beam, T + 1)
        same = (tokens == self.last[..., None])[..., None]
        # behind the same token a blank must come between
        enter = torch.where(same, self.forward[:, :, None, :, 1], before[:, :, None]).movedim(3, 0)
        ends_token = torch.full_like(emitted[0], NEG_INF)
        ends_blank = ends_token.clone()
        steps = [torch.stack((ends_token, ends_blank), dim=3)]
        for t in range(frames):
            ends_blank = torch.logaddexp(ends_token, ends_blank) + blank[t]
            ends_token = torch.logaddexp(ends_token, enter[t]) + emitted[t]
            steps.append(torch.stack((ends_token, ends_blank), dim=3))
        return torch.stack(steps, dim=3), torch.logsumexp(enter[:-1] + emitted, dim=0)

    def advance(self, source: Tensor, token: Tensor) -> None:
        """Hypothesis b becomes `source (N, beam)`'s plus `token (N, beam)`."""
        rows = torch.arange(len(source), device=source.device)[:, None]
        place = (self.tokens[rows, source] == token[..., None]).int().argmax(dim=2)
        self.forward, self.prefix = self.extended[rows, source, place], self.total[rows, source, place]
        self.last = token

    def keep(self, utterances: Tensor) -> None:
        """Go on with these utterances alone."""
        for name in ("log_probs", "forward", "prefix", "last"):
            setattr(self, name, getattr(self, name)[utterances])
