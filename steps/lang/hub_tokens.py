"""Tokens of a seq2seq model of transformers, with its names of languages where it has them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from steps.lang.text import normalize
from utils.errors import UserError, nearest

FILES = ("tokenizer.json", "*.spm", "*.model", "vocab.*")


class HubPair:
    """The tokenizer in `folder` as `steps.lang.pair_tokens.PairTokens`.

    `codes` are the model's names of source and target language; where they are None they are found from ISO 639's
    code, as in `fr`, `fr_XX`, `fra_Latn`'s `fra` or `>>fra<<`. `prefix` is put before every source.
    """

    ends = 0

    def __init__(
        self, folder: Path, language: str | None, codes: tuple[str | None, str | None] = (None, None), prefix: str = ""
    ) -> None:
        from transformers import AutoTokenizer

        # without any of these, transformers 5 makes up an empty one
        if not any(file for kind in FILES for file in folder.glob(kind)):
            raise UserError(f"{folder} holds no tokenizer ({', '.join(FILES)}): copy the model's there.")
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder)
        except Exception as error:  # transformers raises half a dozen types for missing and damaged files
            why = str(error).strip().partition("\n")[0][:120]
            raise UserError(f"{folder} holds no tokenizer that can be read ({why}): copy the model's there.") from None
        self.tokenizers: dict = {}
        self.folder, self._prefix, self._source_code = folder, prefix, codes[0]
        self._named: dict[str, str] = {}
        self._multilingual = hasattr(self._tokenizer, "src_lang")
        self._languages = self._known_languages()
        if codes[0]:
            self._check(codes[0])
        if self._languages:
            code = self._check(codes[1]) if codes[1] else self.code(language)
            self._tokenizer.tgt_lang = code
            if not self._multilingual:
                self._prefix = f"{code} {prefix}"
        languages = getattr(self._tokenizer, "lang_token_to_id", {})  # of M2M100, behind the vocabulary
        known = 1 + max([*self._tokenizer.get_vocab().values(), *languages.values()])
        self.sizes = {"source": known, "target": known}
        first = self._tokenizer(text_target="").input_ids
        # what the model must write first: its name of the target language
        self.start = [token for token in first[:1] if token != self._tokenizer.eos_token_id]

    def _known_languages(self) -> list[str]:
        """The model's names of languages; none of a model for one pair."""
        if not self._multilingual:
            return sorted(token for token in self._tokenizer.get_vocab() if token.startswith(">>"))
        tokenizer = self._tokenizer
        known = getattr(tokenizer, "lang_code_to_id", None) or getattr(tokenizer, "lang_code_to_token", None)
        return sorted(known or tokenizer.all_special_tokens)

    def _check(self, code: str) -> str:
        if code not in self._languages:
            raise UserError(f"{self.folder}: the model has no language '{code}'{nearest(code, self._languages)}.")
        return code

    def code(self, language: str | None) -> str:
        """The model's name of a language (ISO 639-1 or -3); `UserError` where it has none or several."""
        if language not in self._named:
            fits = [name for name in self._languages if language and name.strip("<>_").split("_")[0] == language]
            if len(fits) != 1:
                some = f"several ({', '.join(fits)})" if fits else f"none{nearest(str(language), self._languages)}"
                raise UserError(
                    f"{self.folder}: for the language '{language}' the model has {some}: name it with source_code or "
                    "target_code (--source-code, --target-code)."
                )
            self._named[language] = fits[0]
        return self._named[language]

    def source(self, text: str, language: str | None = None) -> list[int]:
        """Ids of a text, with the tokens that the model wants around it."""
        if self._multilingual:
            self._tokenizer.src_lang = self._source_code or self.code(language)
        return list(self._tokenizer(self._prefix + normalize(text)).input_ids)

    def target(self, text: str) -> list[int]:
        """Ids of a translation, with the tokens that the model writes around it."""
        return list(self._tokenizer(text_target=normalize(text)).input_ids)

    def prompt(self, language: str | None = None) -> list[int]:
        """Nothing: the model has a first token of its own."""
        return []

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids that the model wrote, without special tokens."""
        kept = [index for index in ids if index not in self.start]
        return normalize(self._tokenizer.decode(kept, skip_special_tokens=True))
