"""Text to token ids and back, from a lang folder in icefall's format (`tokens.txt`, `bpe.model`, `lang.json`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece as spm

from steps.lang.pretrained import PretrainedTokenizer
from steps.lang.tables import BOUNDARY, SPECIAL, UNKNOWN_SURFACE, read_tokens
from steps.lang.text import normalize, prompt_ids
from utils.errors import UserError
from utils.files import read_json, require


def tag(language: str) -> str:
    """The token that announces `language`, for instance `<en>`."""
    return f"<{language}>"


class Tokenizer:
    """Maps text to token ids and back.

    Ids: 0 `<blk>`, 1 `<sos/eos>`, 2 `<unk>`, then the language tags if the set has them, then pieces. A word begins
    with `▁`, its own token in a character set, so `decode(encode(text)) == normalize(text)` as long as every
    character is known; an unknown one becomes `<unk>` and decodes to `⁇`.
    """

    blank_id, sos_id, eos_id, unk_id = 0, 1, 1, 2
    ids: list[int] | None = None  # a pretrained model's ids of the tokens: there is no such model
    suppressed: tuple[int, ...] = ()  # what a decoder must not say
    not_first: tuple[int, ...] = ()  # what it must not begin with

    def __init__(
        self, tokens: Sequence[str], languages: Sequence[str], tags: bool, bpe: spm.SentencePieceProcessor | None = None
    ) -> None:
        self.tokens = list(tokens)
        self.languages = list(languages)
        self.tags = tags
        self._ids = {token: index for index, token in enumerate(self.tokens)}
        self._tag_ids = {language: self._ids[tag(language)] for language in self.languages} if tags else {}
        self._hidden = {self.blank_id, self.sos_id, *self._tag_ids.values()}
        self._bpe = bpe
        self._knows: dict[str, bool] = {}

    @classmethod
    def load(cls, lang_dir: str | Path) -> Tokenizer | PretrainedTokenizer:
        """Read a lang folder, ours or icefall's (no `lang.json`); `UserError` if it is incomplete or inconsistent."""
        lang_dir = require(lang_dir, "stage 3 (lang)")
        about = read_json(lang_dir / "lang.json") if (lang_dir / "lang.json").exists() else {}
        if about.get("type") == "pretrained":
            return PretrainedTokenizer.load(lang_dir)
        path, table = lang_dir / "bpe.model", lang_dir / "tokens.txt"
        bpe = None
        if about.get("type", "bpe" if path.exists() else "char") == "char":
            tokens = read_tokens(table)
        else:
            bpe = load_bpe(path)
            tokens = pieces_of(bpe, path)
            if table.exists() and read_tokens(table) != tokens:
                raise UserError(f"{table} and {path} have different tokens: make both again (stage 3).")
        languages, tags = about.get("languages", []), about.get("tags", False)
        if tags and (missing := [name for name in languages if tag(name) not in tokens]):
            raise UserError(f"{table} lacks the tag {tag(missing[0])} that lang.json promises.")
        return cls(tokens, languages, tags, bpe)

    @property
    def vocab_size(self) -> int:
        """Number of tokens, `<blk>`, `<sos/eos>`, `<unk>` and tags included."""
        return len(self.tokens)

    def token(self, index: int) -> str:
        """The symbol of a token id."""
        return self.tokens[int(index)]

    def tag_id(self, language: str) -> int:
        """The id of a language's tag; `UserError` if there are no tags or no such language."""
        if not self.tags:
            raise UserError("This token set has no language tags: make it with --tags (stage 3).")
        if language not in self._tag_ids:
            raise UserError(f"No tag for the language '{language}': the tags are {' '.join(self._tag_ids)}.")
        return self._tag_ids[language]

    def encode(self, text: str, language: str | None = None) -> list[int]:
        """Token ids of `text`, after the tag of `language` where the token set has tags (then it must be given)."""
        ids = [self.tag_id(language)] if self.tags else []
        if self._bpe is None:
            return ids + [self._ids.get(token, self.unk_id) for token in self._characters(text)]
        # A model with user-defined <blk> (icefall's) would read a literal "<blk>" in the text as the blank.
        return ids + [self.unk_id if i in self._hidden else i for i in self._bpe.encode(normalize(text))]

    def sample(self, text: str, language: str | None, alpha: float, seed: int) -> list[int]:
        """As `encode`, with one of the other ways to cut the text into pieces (Kudo 2018, arXiv:1804.10959).

        The lower `alpha`, the less likely ways come up; a set of characters has only one way.
        """
        if self._bpe is None:
            return self.encode(text, language)
        spm.set_random_generator_seed(seed)
        ids = self._bpe.encode(normalize(text), enable_sampling=True, alpha=alpha, nbest_size=-1)
        tags = [self.tag_id(language)] if self.tags else []
        return tags + [self.unk_id if i in self._hidden else i for i in ids]

    def resample(self, ids: Sequence[int], alpha: float, seed: int) -> list[int]:
        """As `sample`, of the text that has the tokens `ids`."""
        language = self.tokens[ids[0]].strip("<>") if self.tags else None
        return self.sample(self.decode(ids), language, alpha, seed)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids; blanks, `<sos/eos>` and tags are dropped, `<unk>` becomes `⁇`."""
        kept = [index for index in map(int, ids) if index not in self._hidden]
        if self._bpe is not None:
            return " ".join(self._bpe.decode(kept).replace(f" {UNKNOWN_SURFACE} ", UNKNOWN_SURFACE).split())
        text = "".join(UNKNOWN_SURFACE if index == self.unk_id else self.tokens[index] for index in kept)
        return " ".join(text.replace(BOUNDARY, " ").split())

    def prompt(self, tokens: str) -> list[int]:
        """Ids of tokens written one behind the other, such as `<sos/eos><fr>`."""
        return prompt_ids(tokens, self._ids)

    def pieces(self, text: str) -> list[str]:
        """Symbols of `text` without a language tag, as a lexicon lists them."""
        ids = self.encode(text, self.languages[0] if self.tags else None)
        return [self.tokens[index] for index in (ids[1:] if self.tags else ids)]

    def unknown(self, text: str) -> str:
        """The characters of `text` that become `<unk>`, in order."""
        return "".join(character for character in normalize(text) if character != " " and not self._known(character))

    def _known(self, character: str) -> bool:
        if self._bpe is None:
            return character in self._ids
        if character not in self._knows:
            self._knows[character] = self.unk_id not in self._bpe.encode(character)
        return self._knows[character]

    def _characters(self, text: str) -> list[str]:
        """Characters with a boundary before each word, or without boundaries where the set has none (Chinese)."""
        words = normalize(text).split()
        boundary = [BOUNDARY] if BOUNDARY in self._ids else []
        return [token for word in words for token in (*boundary, *word)]


def load_bpe(path: str | Path) -> spm.SentencePieceProcessor:
    """A sentencepiece model; `UserError` if the file is missing, truncated or something else."""
    require(path, "stage 3 (lang)")
    try:
        model = spm.SentencePieceProcessor()
        model.LoadFromSerializedProto(Path(path).read_bytes())
        if model.get_piece_size() > len(SPECIAL):
            return model
    except RuntimeError:
        pass
    raise UserError(f"{path} is truncated or not a sentencepiece model: make it again with stage 3 (lang).")


def pieces_of(model: spm.SentencePieceProcessor, path: Path) -> list[str]:
    """Pieces of a model by id; `UserError` unless the first are icefall's special ones."""
    tokens = [model.id_to_piece(index) for index in range(model.get_piece_size())]
    if tuple(tokens[:3]) != SPECIAL:
        raise UserError(f"{path} must have <blk>, <sos/eos>, <unk> as its first pieces, found {' '.join(tokens[:3])}.")
    return tokens
