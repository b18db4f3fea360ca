"""Texts as mapped tokens: what is stored is what the tokenizer says, made whole or not at all; plans in parts."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from steps.lang.tokenizer import Tokenizer
from steps.prepare import text_batches, token_store
from steps.prepare.sentences import SentenceSection, TextSet, TokenCache, sentence_loader
from steps.prepare.text_batches import TextPlan, TextTable
from steps.prepare.token_store import StoredTexts
from tests.steps.lm.ngram_text import sentences
from tests.steps.tiny_lms import write_lang
from utils.errors import UserError

LINES = [" ".join(words) for words in sentences(430)]
LONGEST = 8


@pytest.fixture(scope="module")
def lang(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("lang")
    write_lang(folder, LINES)
    return folder


@pytest.fixture
def text(tmp_path) -> TextSet:
    with gzip.open(tmp_path / "train.en.gz", "wt", encoding="utf-8") as out:
        out.writelines(f"{line}\n" for line in (*LINES[:3], "", " \t", *LINES[3:], "the zebra"))
    return TextSet(path=str(tmp_path / "train.en.gz"))


def table(cache: TokenCache, *weights: float) -> TextTable:
    paths = [cache.folder.parent / f"{n}.en" for n in range(len(weights))]
    for n, path in enumerate(paths):
        path.write_text("".join(f"{line}\n" for line in LINES[n :: len(weights)]))
        cache.make(TextSet(path=str(path)))
    return TextTable([cache.open(TextSet(path=str(path))) for path in paths], weights)


def section(**values) -> SentenceSection:
    return SentenceSection.model_validate({"train": "unused", "max_tokens": 40, "num_buckets": 3, **values})


@pytest.mark.parametrize("processes", [1, 2])
def test_what_is_stored_is_what_the_tokenizer_says(text, lang, tmp_path, monkeypatch, processes):
    monkeypatch.setattr(token_store, "CHUNK", 50)
    monkeypatch.setattr(token_store, "cores", lambda: processes)
    cache, tokenizer = TokenCache(tmp_path / "cache", lang, LONGEST), Tokenizer.load(lang)
    cache.make(text)
    found = cache.open(text)
    expected = [(f"train.en.gz:{n}", tokenizer.encode(line)) for n, line in enumerate([*LINES, "the zebra"], 1)]
    kept = [(name, ids) for name, ids in expected if len(ids) <= LONGEST]
    assert 0 < len(kept) < len(expected)
    assert [(found.name(row), found.tokens(row)[0]) for row in range(len(found))] == kept
    assert [row["id"] for row in found.dropped] == [name for name, ids in expected if len(ids) > LONGEST]
    assert found.dropped[0]["detail"] == "9 tokens, at most 8 are taken"
    assert found.unknown == sum(ids.count(tokenizer.unk_id) for _, ids in kept) > 0
    assert found.totals.tolist() == [sum(len(ids) for _, ids in kept)] and found.ids.dtype == np.uint16
    assert isinstance(found.ids, np.memmap) and isinstance(found.offsets, np.memmap)


def test_it_is_made_once_and_again_when_it_is_damaged_or_other(text, lang, tmp_path, monkeypatch, capsys):
    cache = TokenCache(tmp_path / "cache", lang, LONGEST)
    cache.make(text)
    before, made = cache.open(text).checksum, []
    original = token_store.encode_chunk
    monkeypatch.setattr(token_store, "encode_chunk", lambda *given: made.append(1) or original(*given))
    cache.make(text)
    assert not made
    (folder,) = (tmp_path / "cache").glob("train*")
    with open(folder / "tokens.bin", "r+b") as file:
        file.write(b"\7")
    cache.make(text)
    assert made and "is damaged: it is made again" in capsys.readouterr().err and cache.open(text).checksum == before
    TokenCache(tmp_path / "cache", lang, 5).make(text)
    Path(text.path).write_bytes(gzip.compress(b"the cat\n"))
    cache.make(text)
    assert len(list((tmp_path / "cache").glob("train*"))) == 3 and len(cache.open(text)) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interruption_leaves_nothing(text, lang, tmp_path, monkeypatch, error):
    cache = TokenCache(tmp_path / "cache", lang, LONGEST)
    (tmp_path / "cache" / ".tmp-of-a-killed-one").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(token_store, "CHUNK", 100)
        original = token_store.encode_chunk

        def interrupted(*given):
            if given[-1][0] == 2:
                raise error
            return original(*given)

        patch.setattr(token_store, "encode_chunk", interrupted)
        patch.setattr(token_store, "cores", lambda: 1)
        with pytest.raises(error):
            cache.make(text)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".lock"]
    cache.make(text)
    assert len(cache.open(text)) > 0


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.en", "d\xe9j\xe0 vu\n".encode("latin-1"), r"a\.en is not text in UTF-8: save it as UTF-8"),
        ("a.en.gz", gzip.compress(b"the cat\n" * 5000)[:-30], r"a\.en\.gz is truncated or not gzip"),
        ("a.en.gz", b"the cat\n", r"a\.en\.gz is truncated or not gzip"),
        ("a.en", b"\n \n", r"a\.en holds no text: check the path"),
    ],
)
def test_files_that_are_no_text_are_one_sentence(lang, tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        TokenCache(tmp_path / "cache", lang, LONGEST).make(TextSet(path=str(tmp_path / name)))
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".lock"]


@pytest.mark.parametrize("planned", [1 << 20, 100])
@pytest.mark.parametrize("size", [1, 3])
def test_every_text_comes_once_an_epoch_however_it_is_planned(lang, tmp_path, monkeypatch, planned, size):
    monkeypatch.setattr(text_batches, "PLANNED", planned)
    texts = table(TokenCache(tmp_path / "cache", lang, 50), 1.0, 1.0)
    plans = [TextPlan(texts, section(), rank, size) for rank in range(size)]
    lengths = texts.lengths(np.arange(len(texts)))
    assert plans[0].parts == (1 if planned > 430 else 5)
    epochs = []
    for epoch in range(3):
        shares = [list(plan.batches(epoch)) for plan in plans]
        assert len({len(share) for share in shares}) == 1
        assert sorted(index for share in shares for batch in share for index in batch) == list(range(len(texts)))
        assert all(len(batch) * lengths[batch].max() <= 40 for share in shares for batch in share)
        epochs.append(shares)
    assert epochs[0] != epochs[1] != epochs[2]
    worst = plans[0].worst_batch()
    largest = max(len(batch) * lengths[batch].max() for shares in epochs for share in shares for batch in share)
    assert len(worst) * lengths[worst].max() >= 0.98 * largest


@pytest.mark.parametrize("planned", [1 << 20, 20])
def test_a_small_weight_takes_another_share_of_the_text_each_epoch(lang, tmp_path, monkeypatch, planned):
    monkeypatch.setattr(text_batches, "PLANNED", planned)
    texts = table(TokenCache(tmp_path / "cache", lang, 50), 0.1, 2.0)
    plan, first = TextPlan(texts, section()), len(texts.sets[0])
    epochs = [Counter(index for batch in plan.batches(epoch) for index in batch) for epoch in range(10)]
    assert all(count[index] == 2 for count in epochs for index in range(first, len(texts)))
    shares = [{index for index in count if index < first} for count in epochs]
    assert all(abs(len(share) - first / 10) <= plan.parts * plan.steps for share in shares)
    turns = Counter(index for share in shares for index in share)
    assert len(turns) >= 0.9 * first and max(turns.values()) <= 2  # none comes again before all had their turn


def test_sampled_pieces_need_no_text(lang, tmp_path):
    cache, tokenizer = TokenCache(tmp_path / "cache", lang, 50), Tokenizer.load(lang)
    texts = table(cache, 1.0)
    for line in [*LINES[:40], "the zebra"]:
        ids = tokenizer.encode(line)
        assert tokenizer.resample(ids, 0.2, 7) == tokenizer.sample(line, None, 0.2, 7)
    plain, sampled = (sentence_loader(TextPlan(texts, section(**o)), tokenizer) for o in ({}, {"sampling": 0.2}))
    changed = 0
    for one, other in zip(plain, sampled, strict=True):
        assert one.ids == other.ids
        for row in range(len(one)):
            pieces = [batch.features[row, : batch.feature_lens[row]].tolist() for batch in (one, other)]
            assert tokenizer.decode(pieces[0]) == tokenizer.decode(pieces[1])
            changed += pieces[0] != pieces[1]
    assert changed > 50


def test_the_names_of_texts_are_the_lines_that_are_not_blank(text, lang, tmp_path):
    cache = TokenCache(tmp_path / "cache", lang, 3)
    cache.make(text)
    found, tokenizer = cache.open(text), Tokenizer.load(lang)
    assert isinstance(found, StoredTexts) and len(found) > 20
    for row in range(len(found)):
        assert tokenizer.encode([*LINES, "the zebra"][int(found.name(row).split(":")[1]) - 1]) == found.tokens(row)[0]
