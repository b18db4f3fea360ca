"""CR-CTC's consistency of two views: its definition, its derivative in theory, lengths."""

from __future__ import annotations

import torch

from steps.objectives.consistency import consistency_loss


def test_it_is_the_divergence_from_the_other_view_within_the_lengths() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 6, 5, requires_grad=True)  # two utterances, twice
    lens = torch.tensor([6, 3, 6, 3])
    loss = consistency_loss(logits.log_softmax(2), lens)
    probs = logits.softmax(2).detach()
    other = probs[[2, 3, 0, 1]]
    for row, size in enumerate(lens):
        exact = (other[row, :size] * (other[row, :size] / probs[row, :size]).log()).sum()
        torch.testing.assert_close(loss[row], exact)
    loss.sum().backward()
    inside = (torch.arange(6) < lens[:, None])[..., None]
    torch.testing.assert_close(logits.grad, (probs - other) * inside)  # nothing reaches a view as the other's target


def test_equal_views_agree_and_padding_does_not_matter() -> None:
    one = torch.randn(2, 4, 5).log_softmax(2)
    lens = torch.tensor([4, 2, 4, 2])
    torch.testing.assert_close(consistency_loss(torch.cat((one, one)), lens), torch.zeros(4))
    other = one.clone()
    other[1, 2:] = -torch.inf
    assert consistency_loss(torch.cat((one, other)), lens).tolist() == [0, 0, 0, 0]
    assert consistency_loss(one, lens[:2] * 0).tolist() == [0, 0]
