"""What is said: texts, speakers and languages of supervisions, as Kaldi's validate_text.pl wants them and more."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from steps.lang.text import normalize
from steps.prepare.checks.faults import Faults, Kind
from steps.prepare.usable import texts_of

CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufeff]")  # but those that are white space
RESERVED = frozenset(("<eps>", "#0", "<s>", "</s>"))
MEND = "--fix mends them"

NO_TEXT = Kind("supervisions", "have neither a transcript nor a translation", "--fix removes them")
CHARACTERS = Kind("supervisions", "have control characters in a text", MEND)
SPACES = Kind("supervisions", "have spaces at the ends of a text, double or odd white space", MEND)
FORM = Kind("supervisions", "have a text that is not in Unicode's form NFC", MEND)
BROKEN = Kind(
    "supervisions",
    "have U+FFFD in a text, which stands for lost characters",
    "read the corpus again in the encoding that it has (stage 1)",
)
SYMBOLS = Kind(
    "supervisions", "have a text with a word that graphs use as a symbol (<eps>, #0, <s>, </s>)", "mend the transcripts"
)
SOME_TRANSCRIPTS = Kind("supervisions", "have no transcript, others do", "recognition leaves them out", warning=True)
SOME_TRANSLATIONS = Kind(
    "supervisions",
    "lack a translation into a language that others have",
    "its target translation.<language> leaves them out",
    warning=True,
)
NO_SPEAKER = Kind("supervisions", "have no speaker", "give one if the corpus says it", warning=True)
NO_LANGUAGE = Kind(
    "supervisions",
    "have no language",
    "give one, else language tags and translation targets cannot be had",
    warning=True,
)


def tidy(text: str) -> str:
    """`text` without control characters, in NFC, words separated by single spaces."""
    return text if _tidy(text) else normalize(CONTROL.sub("", text))


def _tidy(text: str) -> bool:
    """Whether a text of ASCII, which most are, is as it should be: the long way takes ten times as long."""
    return text.isascii() and text.isprintable() and "  " not in text and text == text.strip()


def text_faults(text: str) -> list[Kind]:
    """What is wrong with one text."""
    if _tidy(text) and "<" not in text and "#" not in text:
        return []
    found = [CHARACTERS] if CONTROL.search(text) else []
    bare = CONTROL.sub("", text)
    found += [SPACES] if " ".join(bare.split()) != bare else []
    found += [] if unicodedata.is_normalized("NFC", bare) else [FORM]
    found += [BROKEN] if "\ufffd" in text else []
    return found + ([SYMBOLS] if not RESERVED.isdisjoint(text.split()) else [])


class Said:
    """The texts of one file's supervisions, one after the other."""

    def __init__(self, where: object, faults: Faults) -> None:
        self.where, self.faults, self.count = where, faults, 0
        self.written = self.texts = 0  # supervisions with a transcript, with any text
        self.into: Counter[frozenset[str]] = Counter()  # languages of an utterance's texts, the transcript's included
        self.translations: set[str] = set()  # languages of all translations

    def check(self, row: dict) -> None:
        """A supervision as in a manifest."""
        name, text, custom = row["id"], row.get("text"), row.get("custom")
        self.count += 1
        texts = texts_of(text, custom)
        if not texts:
            self.faults.add(self.where, NO_TEXT, name)
        for kind in dict.fromkeys(kind for line in texts for kind in text_faults(line)):
            self.faults.add(self.where, kind, name)
        if not row.get("speaker"):
            self.faults.add(self.where, NO_SPEAKER, name)
        if not row.get("language"):
            self.faults.add(self.where, NO_LANGUAGE, name)
        if texts:
            self.texts += 1
            self.written += bool(text and text.strip())
            translation = (custom or {}).get("translation") or {}
            into = {language for language, line in translation.items() if line and line.strip()}
            self.translations |= into
            self.into[frozenset(into | {row.get("language") or ""})] += 1

    def finish(self) -> None:
        """What only some of those with a text have."""
        self.faults.total(self.where, "supervisions", self.count)
        if 0 < self.written < self.texts:
            self.faults.add(self.where, SOME_TRANSCRIPTS, count=self.texts - self.written)
        lacking = {
            language: sum(count for there, count in self.into.items() if language not in there)
            for language in sorted(self.translations)
        }
        if any(lacking.values()):
            listed = ", ".join(f"{language} {count}" for language, count in lacking.items() if count)
            without = sum(count for there, count in self.into.items() if not self.translations <= there)
            self.faults.add(self.where, SOME_TRANSLATIONS, detail=listed, count=without)
