"""Smaller and mixed n-gram models: entropy pruning, static interpolation and the weights for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from steps.lm.backoff import BOS, EOS, TINY, BackoffModel, Grams
from utils.errors import UserError

NOTHING = Grams(*[np.zeros(0, dtype=np.int64)] * 2, *[np.zeros(0)] * 2)


def prune(model: BackoffModel, threshold: float) -> BackoffModel:
    """Without the n-grams whose loss raises the model's perplexity by less than `threshold`, relatively.

    Stolcke, "Entropy-based pruning of backoff language models" (arXiv:cs/0006025), equations 4 to 6; 1e-8 to 1e-6 are
    usual. Unigrams stay, and what longer n-grams that stay begin with.
    """
    masks = [np.ones(count, dtype=bool) for count in model.counts]
    for order in range(model.order, 1, -1):
        grams = model.orders[order - 1]
        needed = np.zeros(len(grams), dtype=bool)
        if order < model.order:
            needed[model.orders[order].prefix[masks[order]]] = True
        masks[order - 1] = needed | (_loss(model, order) >= threshold)
    pruned = model.keep(masks)
    pruned.set_backoffs()
    return pruned


def _loss(model: BackoffModel, order: int) -> np.ndarray:
    """By how much perplexity would rise, relatively, without each n-gram of this order."""
    grams, below = model.orders[order - 1], model.orders[order - 2]
    rest, shorter_rest = (np.maximum(part, TINY)[grams.prefix] for part in model.left_over(order))
    prob, shorter = grams.log_prob, model.lower(order)
    weight = np.log(rest + np.exp(prob)) - np.log(shorter_rest + np.exp(shorter))
    change = np.exp(prob) * (shorter + weight - prob) + rest * (weight - below.backoff[grams.prefix])
    return np.expm1(-np.exp(_history(model, order - 1)[grams.prefix]) * change)


def _history(model: BackoffModel, order: int) -> np.ndarray:
    """ln of the probability of each n-gram of this order as a history; `<s>` is as probable as `</s>`, as in SRILM."""
    grams = model.grams(order)
    first = np.where(grams[:, 0] == model.ids[BOS], model.ids[EOS], grams[:, 0])
    log_prob = model.orders[0].log_prob[first]
    for place in range(1, order):
        log_prob = log_prob + model.conditional(grams[:, :place], grams[:, place])
    return log_prob


def interpolate(models: Sequence[BackoffModel], weights: Sequence[float]) -> BackoffModel:
    """One model with the n-grams of all, each with the mean of its probabilities (SRILM's `-mix-lm`).

    A word that one of the models lacks has no probability there. Errors: `UserError` for weights that are not one a
    model, positive, and together 1.
    """
    if len(weights) != len(models) or min(weights) <= 0 or abs(sum(weights) - 1) > 1e-3:
        shown = " ".join(f"{weight:g}" for weight in weights)
        raise UserError(f"Weights {shown}: give {len(models)} positive numbers, one a model, that sum to 1.")
    words = list(dict.fromkeys(word for model in models for word in model.words))
    table = {word: index for index, word in enumerate(words)}
    to_new = [np.array([table[word] for word in model.words]) for model in models]
    to_own = [np.array([model.ids.get(word, -1) for word in words]) for model in models]
    mixed, places = BackoffModel(words, []), [np.zeros(1, dtype=np.int64)] * len(models)
    for order in range(1, max(model.order for model in models) + 1):
        keys = [
            place[grams.prefix] * len(words) + new[grams.word]
            for model, place, new in zip(models, places, to_new, strict=True)
            for grams in [model.orders[order - 1] if order <= model.order else NOTHING]
        ]
        union = np.unique(np.concatenate(keys))
        places = [np.searchsorted(union, own) for own in keys]
        zeros = np.zeros(len(union))
        mixed = BackoffModel(words, [*mixed.orders, Grams(union // len(words), union % len(words), zeros, zeros)])
        grams = mixed.grams(order)
        share = [
            weight * np.exp(model.conditional(own[grams[:, :-1]], own[grams[:, -1]]))
            for model, weight, own in zip(models, weights, to_own, strict=True)
        ]
        with np.errstate(divide="ignore"):
            mixed.orders[-1].log_prob = np.log(np.sum(share, axis=0))
    mixed.set_backoffs()
    return mixed


def mixture_weights(log_probs: np.ndarray, tolerance: float = 1e-5) -> np.ndarray:
    """Weights of models `(models,)` that make a text most probable, by EM; `log_probs (models, tokens)` in nats.

    Tokens that no model gives any probability do not count. Errors: `UserError` where there are no others.
    """
    log_probs = log_probs[:, np.isfinite(log_probs).any(0)]
    if not log_probs.size:
        raise UserError("The models have none of the text's words: weights cannot be chosen on it.")
    probs = np.exp(log_probs - log_probs.max(0, keepdims=True))
    weights = np.full(len(probs), 1 / len(probs))
    while True:
        shares = weights[:, None] * probs
        new = (shares / shares.sum(0)).mean(1)
        if np.abs(new - weights).max() < tolerance:
            return new / new.sum()
        weights = new
