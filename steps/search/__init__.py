"""Decoding: greedy and beam search over what a model computes, batched, on any device."""
