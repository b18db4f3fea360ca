"""What a decoder is given before the first token of a text: tokens, or for a language model a request in words."""

from __future__ import annotations

import re
from collections.abc import Mapping

from steps.lang.pretrained import PretrainedTokenizer
from steps.lang.tokenizer import Tokenizer
from utils.errors import UserError, nearest

SPEECH = "<speech>"  # in a request: where the speech goes
SLOT, FILL = -1, -2  # in prompts: the place of the speech; what fills up a shorter prompt, on its left
FIELDS = ("language", "target", "language_name", "target_name")
REQUESTS = {
    "text": f"{SPEECH}\nTranscribe the speech:",
    "translation": f"{SPEECH}\nTranslate the speech into {{target_name}}:",
    "translation of text": f"{SPEECH}\nTranslate the text into {{target_name}}:",
}
TEXT = "{text}"  # in requests of text translation: where the text goes
DEFAULT = "default"  # among requests by language: the one for all other languages

Requests = str | dict[str, str]  # one, or one for each language of the source


class TokenPrompt:
    """Special tokens such as `<|startoftranscript|><|{language}|>`; `<sos/eos>` where there is no `template`."""

    def __init__(self, tokenizer: Tokenizer | PretrainedTokenizer, template: str | None, target: str | None) -> None:
        self.tokenizer, self.template, self.target = tokenizer, template, target

    def __call__(self, language: str | None) -> list[int]:
        """The prompt for speech in `language`; `UserError` where the token set lacks one of its tokens."""
        if self.template is None:
            return [self.tokenizer.sos_id]
        return self.tokenizer.prompt(filled(self.template, language, self.target or language))


class Request:
    """A request such as `<speech>\\nTranslate the speech into {target_name}:`, in the model's chat template if any.

    `template` may be one for each language that is spoken, with `default` for the others. `target` is the language of
    the text (None: the spoken one), `system` the instruction before all (None: the template's own), `names` are
    languages' names in words beside Whisper's.
    """

    def __init__(
        self,
        tokenizer: PretrainedTokenizer,
        template: Requests,
        target: str | None,
        chat: bool = True,
        system: str | None = None,
        names: Mapping[str, str] | None = None,
    ) -> None:
        self.templates = requests(template)
        self.tokenizer, self.target = tokenizer, target
        self.chat = tokenizer.chat if chat else None
        self.system, self.names = system, dict(names or {})
        self._ids: dict[str | None, list[int]] = {}

    def __call__(self, language: str | None) -> list[int]:
        """The prompt for speech in `language`, with `SLOT` in the speech's place."""
        if language not in self._ids:
            self._ids[language] = self._tokens(language)
        return self._ids[language]

    def text(self, language: str | None) -> str:
        """What the model reads."""
        template = self.templates.get(str(language), self.templates.get(DEFAULT))
        if template is None:
            raise UserError(f"No prompt is given for the language '{language}': add it to prompt, or '{DEFAULT}'.")
        request = filled(template, language, self.target or language, self.names)
        return self.chat(request, self.system) if self.chat else "\n".join(filter(None, (self.system, request)))

    def _tokens(self, language: str | None) -> list[int]:
        parts = self.text(language).split(SPEECH)
        if len(parts) != 2:
            raise UserError(
                f"The model's chat template repeats or drops the request '{self.text(language)}': set chat: false."
            )
        before, after = (self.tokenizer.spell(part) for part in parts)
        return [*([] if self.chat else self.tokenizer.opening()), *before, SLOT, *after]


def requests(template: Requests, slot: str = SPEECH) -> dict[str, str]:
    """The requests by language (one for all: `default`), with `SPEECH` in the place of `slot`.

    Errors: `UserError` unless `slot` stands exactly once in each, and all their fields are known.
    """
    by_language = {DEFAULT: template} if isinstance(template, str) else template
    return {language: _checked(request, slot) for language, request in by_language.items()}


def _checked(template: str, slot: str) -> str:
    if (found := template.count(slot)) != 1:
        what = "speech" if slot == SPEECH else "the text"
        wrong = f"without the slot for {what}" if not found else f"with {found} slots for {what}"
        raise UserError(f"'{template}' is a prompt {wrong}: write {slot} once, where {what} is to go.")
    template = template.replace(slot, SPEECH)
    for field in re.findall(r"{(\w*)}", template):
        if field not in FIELDS:
            known = ", ".join(f"{{{name}}}" for name in FIELDS)
            raise UserError(f"The prompt '{template}' has '{{{field}}}'{nearest(field, FIELDS)}: it may have {known}.")
    return template


def filled(template: str, language: str | None, target: str | None, names: Mapping[str, str] | None = None) -> str:
    """`template` with the codes of the languages of speech and text, and their names, in the places of its `FIELDS`."""
    for field, code in (("language", language), ("target", target)):
        if code is None and f"{{{field}" in template:
            raise UserError(f"The prompt '{template}' wants the language that is spoken: give it (--language).")
        template = template.replace(f"{{{field}}}", str(code))
        if f"{{{field}_name}}" in template:
            template = template.replace(f"{{{field}_name}}", language_name(str(code), names or {}))
    return template


def language_name(code: str, names: Mapping[str, str]) -> str:
    """A language's name in English, from `names` or Whisper's list; `UserError` for one that neither has."""
    if name := names.get(code, language_names().get(code)):
        return name
    raise UserError(f"No name is known of the language '{code}': give it in the head, as names: {{{code}: ...}}.")


def language_names() -> dict[str, str]:
    """Names in English of the hundred languages that Whisper knows, by their codes (ISO 639)."""
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    return {code: name.title() for code, name in LANGUAGES.items()}
