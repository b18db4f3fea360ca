"""Tokens of a pretrained model, all of them or those that a corpus needs, as a lang folder.

Beside `tokens.txt` and `lang.json` the folder holds the model's `tokenizer.json` and, if it chats, its template
(`steps.lang.chat`); `ids` in `lang.json` are the model's ids of our tokens (-1: none), so that rows of its embeddings
can be chosen by them.
"""

from __future__ import annotations

import filecmp
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer as Backend
from tokenizers.pre_tokenizers import ByteLevel

from steps.lang.chat import Chat
from steps.lang.tables import SPECIAL, UNK, read_tokens
from steps.lang.text import normalize, prompt_ids
from utils.errors import UserError
from utils.files import read_json, require


class PretrainedTokenizer:
    """As `steps.lang.tokenizer.Tokenizer`; a piece that was left out is spelled in bytes, so nothing is unknown.

    Ids: 0 `<blk>`, 1 the model's end of text, 2 `<unk>`, then the kept tokens in the model's order. `chat` is how the
    model is talked to, None where it does not chat.
    """

    blank_id, sos_id, eos_id, unk_id = 0, 1, 1, 2
    tags = False

    def __init__(self, backend: Backend, tokens: Sequence[str], about: dict, chat: Chat | None = None) -> None:
        self.tokens, self.ids, self.languages = list(tokens), list(about["ids"]), list(about["languages"])
        self._backend, self._space, self.chat = backend, " " if about["leading_space"] else "", chat
        self._ours = {other: index for index, other in enumerate(self.ids) if other >= 0}
        self._index = {token: index for index, token in enumerate(self.tokens)}
        special = set(about["special"])
        self._special = {i for i, token in enumerate(self.tokens) if i < len(SPECIAL) or token in special}
        # special tokens but the end, and what the model's authors left out (music notes, brackets of stage directions)
        left_out = {self._ours[other] for other in about["suppress"] if other in self._ours}
        self.not_first = tuple(self._ours[other] for other in about.get("not_first", []) if other in self._ours)
        self.suppressed = tuple(sorted((self._special | left_out) - {self.eos_id}))

    @classmethod
    def load(cls, lang_dir: Path) -> PretrainedTokenizer:
        """Read a lang folder; `UserError` if it is incomplete or its parts do not fit each other."""
        about, tokens = read_json(lang_dir / "lang.json"), read_tokens(lang_dir / "tokens.txt")
        backend = load_backend(lang_dir / "tokenizer.json")
        if len(about["ids"]) != len(tokens) or max(about["ids"]) >= backend.get_vocab_size():
            raise UserError(f"{lang_dir}: lang.json, tokens.txt, tokenizer.json do not fit: make it again (stage 3).")
        return cls(backend, tokens, about, Chat.load(lang_dir))

    @property
    def vocab_size(self) -> int:
        """Number of tokens, `<blk>` and the special ones included."""
        return len(self.tokens)

    def token(self, index: int) -> str:
        """The symbol of a token id."""
        return self.tokens[int(index)]

    def encode(self, text: str, language: str | None = None) -> list[int]:
        """Token ids of `text`; the model needs no tag of the language here (see `prompt`)."""
        return self.spell(self._space + normalize(text))

    def spell(self, text: str) -> list[int]:
        """Token ids of `text` as it stands, special tokens in it included."""
        encoded = self._backend.encode(text, add_special_tokens=False)
        return [i for other, piece in zip(encoded.ids, encoded.tokens, strict=True) for i in self._kept(other, piece)]

    def opening(self) -> list[int]:
        """Ids of what the model wants before any text that is no chat (most models: nothing)."""
        ids = self._backend.encode("", add_special_tokens=True).ids
        return [self._ours[other] for other in ids if other in self._ours and self._ours[other] != self.eos_id]

    def _kept(self, other: int, piece: str) -> list[int]:
        if other in self._ours:
            return [self._ours[other]]
        return [index for character in piece for index in self._spelled(character)]

    def _spelled(self, character: str) -> list[int]:
        """A character of a piece: in GPT-2's alphabet it stands for a byte, elsewhere it has bytes in hexadecimal."""
        if character in self._index:
            return [self._index[character]]
        return [self._index.get(f"<0x{byte:02X}>", self.unk_id) for byte in character.encode()]

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


def check_tokens(lang: Path, model: Path, key: str) -> None:
    """`UserError` naming `key` where a lang folder's tokens are not those that `model`'s tokenizer has at their ids.

    Nothing is said where the folder is none of a pretrained model, or the model has no `tokenizer.json` beside it.
    """
    own, theirs = lang / "tokenizer.json", model / "tokenizer.json"
    if not (own.exists() and theirs.exists()) or filecmp.cmp(own, theirs, shallow=False):
        return
    one, other = load_backend(own), load_backend(theirs)
    for index in read_json(lang / "lang.json").get("ids", []):
        if index >= 0 and (token := one.id_to_token(index)) != (found := other.id_to_token(index)):
            there = f"'{found}'" if found else "none"
            raise UserError(
                f"{key}: {lang} has '{token}' as the model's token {index}, in {model} that is {there}: make the lang "
                "folder from that model's tokenizer (stage 3: steps.lang.prepare --type pretrained)."
            )


def kept_ids(backend: Backend, texts: Iterable[str]) -> set[int]:
    """The model's ids that `texts` need: theirs, single bytes, and special tokens (but timestamps)."""
    used = {i for text in texts for i in backend.encode(text, add_special_tokens=False).ids}
    vocab = backend.get_vocab(with_added_tokens=True)
    single = {f"<0x{byte:02X}>" for byte in range(256)} | {"▁"} if "<0x00>" in vocab else set(ByteLevel.alphabet())
    used |= {vocab[token] for token in single if token in vocab}
    return used | set(special_tokens(backend).values())


def special_tokens(backend: Backend) -> dict[str, int]:
    """Added tokens such as `<|fr|>` with their ids, without Whisper's timestamps."""
    added = {token.content: index for index, token in backend.get_added_tokens_decoder().items()}
    return {token: index for token, index in added.items() if not token.strip("<|>").replace(".", "").isdigit()}


def describe_tokens(
    backend: Backend, texts: Iterable[str] | None, end: int, leading_space: bool, prompts: Iterable[str] = ()
) -> tuple[list[str], dict]:
    """(`tokens.txt`'s symbols, what `lang.json` says) of all tokens, or those that `texts` need (None: all).

    `prompts` are texts whose tokens are kept too, as they stand.
    """
    space, vocab = " " if leading_space else "", backend.get_vocab(with_added_tokens=True)
    unknown = vocab.get(UNK, -1)  # a model's own, if it has one
    kept = set(vocab.values()) if texts is None else kept_ids(backend, [space + normalize(text) for text in texts])
    kept |= kept_ids(backend, prompts)
    kept = sorted(kept - {end, unknown})
    tokens = [*SPECIAL, *(symbol(backend.id_to_token(i)) for i in kept)]
    added = {symbol(token.content) for token in backend.get_added_tokens_decoder().values()}
    special = [token for token in tokens if token in added]
    return tokens, {"ids": [-1, end, unknown, *kept], "special": special, "leading_space": leading_space}


def symbol(token: str) -> str:
    """A token as `tokens.txt` writes it: without white space, which separates its fields, and never empty."""
    return "".join(f"<U+{ord(c):04X}>" if c.isspace() else c for c in token) or "<empty>"
