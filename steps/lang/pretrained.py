"""Tokens of a pretrained model, all of them or those that a corpus needs, as a lang folder.

Beside `tokens.txt` and `lang.json` the folder holds the model's `tokenizer.json`; `ids` in `lang.json` are the model's
ids of our tokens (-1: none), so that rows of its embeddings can be chosen by them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer as Backend

from steps.lang.tables import SPECIAL, read_tokens
from steps.lang.text import normalize, prompt_ids
from utils.errors import UserError
from utils.files import read_json, require


class PretrainedTokenizer:
    """As `steps.lang.tokenizer.Tokenizer`; a piece that was left out is spelled in bytes, so nothing is unknown.

    Ids: 0 `<blk>`, 1 the model's end of text, 2 `<unk>`, then the kept tokens in the model's order.
    """

    blank_id, sos_id, eos_id, unk_id = 0, 1, 1, 2
    tags = False

    def __init__(self, backend: Backend, tokens: Sequence[str], about: dict) -> None:
        self.tokens, self.ids, self.languages = list(tokens), list(about["ids"]), list(about["languages"])
        self._backend, self._space = backend, " " if about["leading_space"] else ""
        self._ours = {other: index for index, other in enumerate(self.ids) if other >= 0}
        self._index = {token: index for index, token in enumerate(self.tokens)}
        special = set(about["special"])
        self._special = {i for i, token in enumerate(self.tokens) if i < len(SPECIAL) or token in special}
        # special tokens but the end, and what the model's authors left out (music notes, brackets of stage directions)
        left_out = {self._ours[other] for other in about["suppress"] if other in self._ours}
        self.suppressed = tuple(sorted((self._special | left_out) - {self.eos_id}))

    @classmethod
    def load(cls, lang_dir: Path) -> PretrainedTokenizer:
        """Read a lang folder; `UserError` if it is incomplete or its parts do not fit each other."""
        about, tokens = read_json(lang_dir / "lang.json"), read_tokens(lang_dir / "tokens.txt")
        backend = load_backend(lang_dir / "tokenizer.json")
        if len(about["ids"]) != len(tokens) or max(about["ids"]) >= backend.get_vocab_size():
            raise UserError(f"{lang_dir}: lang.json, tokens.txt, tokenizer.json do not fit: make it again (stage 3).")
        return cls(backend, tokens, about)

    @property
    def vocab_size(self) -> int:
        """Number of tokens, `<blk>` and the special ones included."""
        return len(self.tokens)

    def token(self, index: int) -> str:
        """The symbol of a token id."""
        return self.tokens[int(index)]

    def encode(self, text: str, language: str | None = None) -> list[int]:
        """Token ids of `text`; the model needs no tag of the language here (see `prompt`)."""
        encoded = self._backend.encode(self._space + normalize(text), add_special_tokens=False)
        return [i for other, piece in zip(encoded.ids, encoded.tokens, strict=True) for i in self._kept(other, piece)]

    def _kept(self, other: int, piece: str) -> list[int]:
        if other in self._ours:
            return [self._ours[other]]
        return [self._index.get(byte, self.unk_id) for byte in piece]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids; special tokens are dropped."""
        kept = [self.ids[index] for index in map(int, ids) if index not in self._special]
        return " ".join(self._backend.decode(kept, skip_special_tokens=True).split())

    def prompt(self, tokens: str) -> list[int]:
        """Ids of special tokens written one behind the other, such as `<|startoftranscript|><|fr|>`."""
        return prompt_ids(tokens, self._index)

    def pieces(self, text: str) -> list[str]:
        """Symbols of `text`."""
        return [self.tokens[index] for index in self.encode(text)]

    def unknown(self, text: str) -> str:
        """The characters of `text` that become `<unk>`: none."""
        return ""


def load_backend(path: str | Path) -> Backend:
    """A `tokenizer.json`; `UserError` where it is missing or another file."""
    try:
        return Backend.from_file(str(require(path)))
    except UserError:
        raise
    except Exception as error:  # of the Rust library, whatever is wrong
        raise UserError(f"{path} is no tokenizer ({error}): copy or download the model again.") from None


def kept_ids(backend: Backend, texts: Iterable[str], end: int, space: str) -> list[int]:
    """The model's ids that `texts` need: theirs, single bytes, and special tokens (but timestamps); `end` left out."""
    used = {i for text in texts for i in backend.encode(space + normalize(text), add_special_tokens=False).ids}
    vocab = backend.get_vocab(with_added_tokens=True)
    used |= {index for token, index in vocab.items() if len(token) == 1}
    used |= set(special_tokens(backend).values())
    return sorted(used - {end})


def special_tokens(backend: Backend) -> dict[str, int]:
    """Added tokens such as `<|fr|>` with their ids, without Whisper's timestamps."""
    added = {token.content: index for index, token in backend.get_added_tokens_decoder().items()}
    return {token: index for token, index in added.items() if not token.strip("<|>").replace(".", "").isdigit()}


def describe_tokens(
    backend: Backend, texts: Iterable[str] | None, end: int, leading_space: bool
) -> tuple[list[str], dict]:
    """(`tokens.txt`'s symbols, what `lang.json` says) of all tokens, or those that `texts` need (None: all)."""
    space = " " if leading_space else ""
    everything = range(backend.get_vocab_size(with_added_tokens=True))
    kept = [i for i in everything if i != end] if texts is None else kept_ids(backend, texts, end, space)
    kept = [i for i in kept if (backend.id_to_token(i) or "").strip()]  # Whisper has an empty one
    ids = [-1, end, -1, *kept]
    tokens = [*SPECIAL, *(backend.id_to_token(i) for i in kept)]
    added = {token.content for token in backend.get_added_tokens_decoder().values()}
    special = [token for token in tokens if token in added]
    return tokens, {"ids": ids, "special": special, "leading_space": leading_space}
