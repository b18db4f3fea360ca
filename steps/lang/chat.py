"""How a language model is talked to: the chat template that its authors wrote beside its tokenizer."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, models

from utils.errors import UserError
from utils.files import read_json, write_json, write_text

TEMPLATE, TOKENS = "chat_template.jinja", "special_tokens_map.json"
# what some templates ask for: models that think aloud shall not, and the same prompt on any day
SETTINGS = {"enable_thinking": False, "date_string": "1 January 2025"}


class Chat:
    """A chat template with the tokens that it may name (`bos_token`, `eos_token`)."""

    def __init__(self, template: str, tokens: dict[str, str]) -> None:
        from transformers import PreTrainedTokenizerFast

        self.template, self.tokens = template, tokens
        backend = Tokenizer(models.BPE())  # only the template's words are wanted
        self._tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template, **tokens)

    @classmethod
    def of_model(cls, folder: Path) -> Chat | None:
        """That of a model's folder in transformers' layout; None where it has none."""
        about = _json(folder / "tokenizer_config.json")
        template, file = about.get("chat_template"), folder / TEMPLATE
        if isinstance(template, list):  # several, by name
            template = next((entry["template"] for entry in template if entry["name"] == "default"), None)
        template = file.read_text("utf-8") if file.exists() else template
        return cls(template, special_names(about)) if template else None

    @classmethod
    def load(cls, folder: Path) -> Chat | None:
        """What `save` wrote; None where there is nothing."""
        file = folder / TEMPLATE
        return cls(file.read_text("utf-8"), _json(folder / TOKENS)) if file.exists() else None

    def save(self, folder: Path) -> None:
        """Write it into a lang folder."""
        write_json(folder / TOKENS, self.tokens)
        write_text(folder / TEMPLATE, self.template)

    def __call__(self, text: str, system: str | None = None) -> str:
        """What the model reads before it answers a user's `text`; `system` is the instruction before all (None: the
        template's own). Errors: `UserError` where the template does not take that."""
        messages = [{"role": "system", "content": system}] if system is not None else []
        messages.append({"role": "user", "content": text})
        try:
            return self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **SETTINGS)
        except Exception as error:  # whatever the template's own code raises
            raise UserError(
                f"The model's chat template does not take this prompt ({error}): change 'prompt' or 'system', "
                "or set chat: false."
            ) from None


def special_names(about: dict) -> dict[str, str]:
    """The beginning and end of a text that a `tokenizer_config.json` names."""
    found = {name: about.get(name) for name in ("bos_token", "eos_token")}
    found = {name: token["content"] if isinstance(token, dict) else token for name, token in found.items()}
    return {name: token for name, token in found.items() if token}


def end_token(folder: Path, config: dict) -> str | int | None:
    """What ends a text of the model in `folder`: its tokenizer's word, else the id in its `config.json`."""
    end = special_names(_json(folder / "tokenizer_config.json")).get("eos_token", config.get("eos_token_id"))
    return end[0] if isinstance(end, list) else end


def _json(file: Path) -> dict:
    return read_json(file) if file.exists() else {}
