"""Forward-backward over transducer lattices, in plain torch: all utterances and one whole anti-diagonal at a time.

A lattice node is (frame t, tokens emitted s). A blank leads from (t, s) to (t + 1, s); a symbol leads to (t, s + 1) in
the regular transducer (Graves 2012) and to (t + 1, s + 1) in the modified one. So all nodes with the same t + s (with
the same t, if modified) depend only on those one step earlier: they are a front. Of each frame only `width` nodes from
`start` on are kept (all of them in the full lattice). Such a band never has two nodes on one front whose s is equal
modulo `width`, therefore a front is `width` slots per utterance, node s living in slot s % width: a blank stays in its
slot and a symbol moves one slot on. The loop over fronts makes a few calls on (batch x width) numbers each and never
waits for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

# stands for log 0: finite, so that no infinity minus infinity arises; its sums over thousands of frames are finite too
NEVER = -1.0e30


class Band:
    """Which nodes of a batch of lattices are kept, which arcs join them, and where the arcs are in the fronts' arrays.

    `shape` is (batch, frames, width). `start` `(batch, frames)` is the first s kept at each frame, non-decreasing over
    frames; None keeps all of them, `width` being the longest target's length + 1. `lens` and `target_lens` `(batch,)`
    are on the device of the computation. Arcs are `(batch, frames, width)`; a full lattice has one symbol column less.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        start: Tensor | None,
        lens: Tensor,
        target_lens: Tensor,
        max_target: int,
        modified: bool = False,
    ) -> None:
        self.shape, self.start, self.modified = shape, start, modified
        batch, frames, width = shape
        state = torch.arange(width, device=lens.device).view(1, 1, width)
        self.state = state if start is None else state + start.unsqueeze(2)
        self.frame = torch.arange(frames, device=lens.device).view(1, frames, 1)
        self.steps = frames if modified else frames + max_target
        self.end = lens if modified else lens + target_lens
        self.end_slot = (target_lens % width).unsqueeze(1)
        self._find_arcs(lens.view(batch, 1, 1), target_lens.view(batch, 1, 1))
        if start is not None:
            self._find_positions()

    def _find_arcs(self, lens: Tensor, target_lens: Tensor) -> None:
        """Masks of the arcs that lead from a node of the band to another one, or to the end of the lattice."""
        width = self.shape[2]
        inside, last = self.frame < lens, self.frame == lens - 1
        self.blank_arcs = inside & (self.state <= target_lens)
        self.symbol_arcs = inside & (self.state < target_lens)
        if self.modified and self.start is not None:
            following = torch.cat((self.start[:, 1:], self.start[:, -1:]), 1).unsqueeze(2)
            self.blank_arcs &= last | (self.state >= following)
            self.symbol_arcs &= last | (self.state + 1 < following + width)
        elif self.start is not None:
            self.symbol_arcs[:, :, -1] = False
        # only the arc into the end may leave the last frame, or slots that the end's loop uses would be disturbed
        self.blank_arcs &= ~last | (self.state == target_lens)
        if self.modified:
            self.symbol_arcs &= ~last | (self.state == target_lens - 1)
        if self.start is None:
            self.symbol_arcs = self.symbol_arcs[:, :, : width - 1]

    def _find_positions(self) -> None:
        """Flat positions of a band's arcs in the arrays of `new_fronts`: where they leave, and where they arrive."""
        batch, _, width = self.shape
        front = (self.frame if self.modified else self.frame + self.state) * (2 * width)
        row = torch.arange(batch, device=self.state.device).view(-1, 1, 1)
        self._symbol_from = (front + self.state % width) * batch + row
        self._symbol_to = (front + (self.state + 1) % width) * batch + row
        self._blank_at = self._symbol_from + width * batch

    def new_fronts(self, like: Tensor, *leading: int, columns: int, fill: float = NEVER) -> Tensor:
        """A tensor `(*leading, batch, columns)`, in the memory order in which the fronts' operations are fast.

        Bands are narrow, so there the batch varies fastest.
        """
        if self.start is None:
            return like.new_full((*leading, self.shape[0], columns), fill)
        return like.new_full((*leading, columns, self.shape[0]), fill).transpose(-1, -2)

    def _strided(self, fronts: Tensor, symbol_shift: int) -> tuple[Tensor, Tensor]:
        """Views `(batch, frames, width)` of the blanks and `(batch, frames, width - 1)` of the symbols of `fronts`."""
        batch, frames, width = self.shape
        step = 2 * batch * width
        strides = (width, step, 1 if self.modified else step + 1)
        offset = fronts.storage_offset()
        blank = fronts.as_strided((batch, frames, width), strides, offset + batch * width)
        return blank, fronts.as_strided((batch, frames, width - 1), strides, offset + symbol_shift)

    def to_fronts(self, blank: Tensor, symbol: Tensor) -> Tensor:
        """Arc log-probabilities by front: `(steps, 2, batch, width)`, [:, 0] symbols and [:, 1] blanks, in the slots
        that they leave. After an utterance's last blank a free loop leads to the last front.
        """
        fronts = self.new_fronts(blank, self.steps, 2, columns=self.shape[2])
        blank = blank.masked_fill(~self.blank_arcs, NEVER)
        symbol = symbol.masked_fill(~self.symbol_arcs, NEVER)
        if self.start is None:
            blank_view, symbol_view = self._strided(fronts, 0)
            blank_view.copy_(blank)
            symbol_view.copy_(symbol)
        else:
            flat = fronts.transpose(-1, -2).view(-1)
            flat.scatter_(0, self._blank_at.flatten(), blank.flatten())
            flat.scatter_(0, self._symbol_from.flatten(), symbol.flatten())
        loops = fronts[:, 1]
        at = self.end_slot.unsqueeze(0).expand(self.steps, -1, 1)
        ended = torch.arange(self.steps, device=blank.device).view(-1, 1, 1) >= self.end.view(1, -1, 1)
        loops.scatter_(2, at, loops.gather(2, at).masked_fill(ended, 0.0))
        return fronts

    def from_fronts(self, fronts: Tensor) -> tuple[Tensor, Tensor]:
        """(blank, symbol) of arrays that hold symbols in the slots where they arrive; zero where there is no arc."""
        if self.start is None:
            blank, symbol = self._strided(fronts, 1)
        else:
            flat = fronts.transpose(-1, -2).view(-1)
            blank, symbol = flat[self._blank_at], flat[self._symbol_to]
        return blank * self.blank_arcs, symbol * self.symbol_arcs


def _forward(fronts: Tensor, band: Band) -> Tensor:
    """Log-probabilities `(steps + 1, batch, width)` of reaching each node; about NEVER or less where no path does."""
    steps, _, batch, width = fronts.shape
    alpha = band.new_fronts(fronts, steps + 1, columns=width)
    alpha[0, :, 0] = 0.0
    # what arrives: blanks in their slot, symbols in the next one, of which the one past the last is the first again
    arriving = band.new_fronts(fronts, 2, columns=width + 1)
    kind, row, column = arriving.stride()
    leaving = arriving.as_strided((2, batch, width), (kind - column, row, column), column)
    symbol, blank = arriving[0, :, :-1], arriving[1, :, :-1]
    first, past_last = arriving[0, :, 0], arriving[0, :, -1]
    nodes = alpha.unbind(0)
    for i, arcs in enumerate(fronts.unbind(0)):
        torch.add(nodes[i], arcs, out=leaving)
        if band.start is not None:
            first.copy_(past_last)
        torch.logaddexp(symbol, blank, out=nodes[i + 1])
    return alpha


def _backward(fronts: Tensor, alpha: Tensor, possible: Tensor, band: Band) -> Tensor:
    """Arc occupancies `(steps, 2, batch, width)`, in the slots where arcs arrive; zero where not `possible`.

    Overwrites `fronts`.
    """
    steps, _, _, width = fronts.shape
    symbol, blank = fronts.add_(alpha[:-1].unsqueeze(1)).unbind(1)
    # a node's occupancy is divided among the arcs that arrive by their shares, which add up to 1 exactly
    shares = torch.empty_like(fronts)
    torch.sub(symbol[:, :, :-1], blank[:, :, 1:], out=shares[:, 0, :, 1:])
    torch.sub(symbol[:, :, -1], blank[:, :, 0], out=shares[:, 0, :, 0])
    torch.sub(1.0, shares[:, 0].sigmoid_(), out=shares[:, 1])
    gamma = band.new_fronts(fronts, steps + 1, columns=width, fill=0.0)
    gamma[-1].scatter_(1, band.end_slot, possible.to(gamma.dtype).unsqueeze(1))
    arriving = band.new_fronts(fronts, 2, columns=width + 1, fill=0.0)
    inner, leaving_symbol, leaving_blank = arriving[:, :, :-1], arriving[0, :, 1:], arriving[1, :, :-1]
    first, past_last = arriving[0, :, 0], arriving[0, :, -1]
    nodes, by_step = gamma.unbind(0), shares.unbind(0)
    for i in range(steps - 1, -1, -1):
        torch.mul(by_step[i], nodes[i + 1], out=inner)
        if band.start is not None:
            past_last.copy_(first)
        torch.add(leaving_symbol, leaving_blank, out=nodes[i])
    return shares.mul_(gamma[1:].unsqueeze(1))


def forward_backward(
    blank: Tensor, symbol: Tensor, band: Band, occupancies: bool = True
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Sum over all paths, and how often they take each arc.

    `blank` and `symbol` are arc log-probabilities in nats as described at `Band`. Returns the total log-probability
    `(batch,)` (0 where no path exists), whether a path exists `(batch,)`, and the occupancies of blanks and symbols,
    which are the derivatives of the total with respect to `blank` and `symbol` (None unless wanted).
    """
    fronts = band.to_fronts(blank, symbol)
    alpha = _forward(fronts, band)
    total = alpha[-1].gather(1, band.end_slot).squeeze(1)
    possible = ~(total < NEVER / 2)  # not a number must stay one
    total = total.masked_fill(~possible, 0.0)
    if not occupancies:
        return total, possible, None, None
    return (total, possible, *band.from_fronts(_backward(fronts, alpha, possible, band)))
