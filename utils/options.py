"""Command lines (argparse) and YAML configs (pydantic) that refuse what they do not know and name the nearest."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from utils.errors import UserError, nearest
from utils.files import require, write_text
from utils.fingerprint import bases


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, but not those that say nothing: None, a flag's False, an empty list."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        silent = action.default is None or action.default is False or action.default == []
        return action.help if silent else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """argparse that shows defaults, takes no abbreviations, and answers a wrong option with the nearest right one."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", _Formatter)
        super().__init__(allow_abbrev=False, **kwargs)

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        self._given = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        if message.startswith("the following arguments are required") and (unknown := self._unknown()):
            message = f"unrecognized arguments: {' '.join(unknown)}"  # what is missing may only be misspelt
        if found := re.search(r"unrecognized arguments: (--[\w-]+)", message):
            message += nearest(found[1], self._names())
        print(f"error: {self.prog}: {message}; see --help.", file=sys.stderr)
        sys.exit(2)

    def _names(self) -> set[str]:
        commands = [action.choices for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        parsers = [self, *(parser for choices in commands for parser in choices.values())]
        return {name for parser in parsers for name in parser._option_string_actions}

    def _unknown(self) -> list[str]:
        """The long options on the command line that this parser and its commands do not have."""
        words = self._given[: self._given.index("--")] if "--" in self._given else self._given
        return [word for word in words if word.startswith("--") and word.partition("=")[0] not in self._names()]


class Config(BaseModel):
    """Base of every config: unknown keys are refused, values are checked, numbers such as 1e-3 are read as numbers."""

    model_config = ConfigDict(extra="forbid", validate_default=True)


C = TypeVar("C", bound=BaseModel)


def load_yaml(path: str | Path, above: tuple[Path, ...] = ()) -> dict:
    """The mapping in a YAML file; `UserError` when it is missing, malformed, or not a mapping.

    `base: other.yaml`, or `base: [one.yaml, two.yaml]`, puts other files below this one: paths relative to it, the
    later over the earlier. Sections are merged key by key, all else is replaced, as is a section of another `name`.
    """
    here = Path(path).resolve()
    if here in above:
        raise UserError(
            f"{path} is based on itself ({' -> '.join(file.name for file in (*above, here))}): break the ring."
        )
    if above and not here.exists():
        raise UserError(f"{above[-1]} is based on {path}, which does not exist: correct its base.")
    values = _parsed(path)
    if "base" not in values:
        return values
    files, named = bases(str(path)), values.pop("base")
    if len(files) != len(named if isinstance(named, list) else [named]) or not files:
        raise UserError(f"{path}: write the base in one line, 'base: other.yaml' or 'base: [one.yaml, two.yaml]'.")
    merged: dict = {}
    for below in files:
        merged = merge(merged, load_yaml(below, (*above, here)))
    return merge(merged, values)


def merge(below: dict, values: dict) -> dict:
    """`values` over `below`: sections key by key unless they have different names; lists and scalars replace."""
    merged = {**below, **values}
    for key, section in values.items():
        both = [side for side in (below.get(key), section) if isinstance(side, dict)]
        if len(both) == 2 and len({side["name"] for side in both if "name" in side}) < 2:
            merged[key] = merge(*both)
    return merged


def _parsed(path: str | Path) -> dict:
    try:
        values = yaml.safe_load(require(path).read_text("utf-8"))
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text in UTF-8: save it as UTF-8, or check the path.") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that the calendar does not have
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold 'key: value' lines, found {type(values).__name__}.")
    return values


def override(values: dict, assignments: list[str]) -> dict:
    """`values` with `a.b.c=value` assignments applied in place (values are read as YAML)."""
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise UserError(f"Override '{assignment}' is not of the form key=value.")
        *parents, last = key.split(".")
        node = values
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise UserError(f"Override '{assignment}': '{parent}' holds a value, not a section.")
        try:
            node[last] = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError) as error:
            why = getattr(error, "problem", None) or " ".join(str(error).split())
            raise UserError(f"Override '{assignment}': the value is not YAML ({why}): correct or quote it.") from None
    return values


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that an annotation such as `A | B | None` or `Annotated[A | B, ...]` allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _place(model: type[BaseModel], location: tuple) -> tuple[str, list[str]]:
    """The dotted key that `location` means to a user, and the valid names beside it as far as annotations tell.

    pydantic puts the `name` that chose a section's kind into the location, where the user wrote none.
    """
    shown: list[str] = []
    names: list[str] = []
    models = [model]
    for part in location:
        chosen = [m for m in models if "name" in m.model_fields and part in get_args(m.model_fields["name"].annotation)]
        if len(models) > 1 and chosen:
            models = chosen
            continue
        shown.append(str(part))
        if isinstance(part, int):  # an entry of a list is what the list is of
            continue
        names = [name for m in models for name in m.model_fields]
        models = [
            found for m in models if part in m.model_fields for found in _models_in(m.model_fields[part].annotation)
        ]
    return ".".join(shown), names


def _explained(first: dict, model: type[BaseModel]) -> str:
    """pydantic's error in words."""
    location, context = tuple(first["loc"]), first.get("ctx", {})
    key, names = _place(model, location)
    if first["type"] == "extra_forbidden":
        return f"unknown key '{key}'{nearest(str(location[-1]), names)}"
    if first["type"] == "missing":
        return f"the key '{key}' is missing"
    if first["type"] == "value_error":  # a check of ours, of a section or of the whole
        return (f"{key}: " if key else "") + str(context["error"])
    if first["type"] == "union_tag_not_found":
        return f"the section '{key}' needs a 'name' that says of which kind it is"
    if first["type"] == "union_tag_invalid":
        valid = re.findall(r"'([^']+)'", context["expected_tags"])
        return f"{key}.name = '{context['tag']}': it is one of {', '.join(valid)}{nearest(context['tag'], valid)}"
    return f"'{key}' = {first['input']!r}: {first['msg']}"


def check_config(values: dict, model: type[C], source: str) -> C:
    """`values` as a checked `model`; `UserError` naming `source`, the key, and the nearest valid key."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{source}: {_explained(error.errors()[0], model)}.") from None


def load_config(path: str | Path, model: type[C], assignments: list[str] | None = None) -> C:
    """A YAML file with overrides applied, as a checked `model`."""
    return check_config(override(load_yaml(path), assignments or []), model, str(path))


def save_config(path: str | Path, config: BaseModel) -> None:
    """Write `config` as YAML, atomically."""
    write_text(path, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


def positive(text: str) -> float:
    """An argument type: a number above zero."""
    if not 0 < (value := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return value


def scale(text: str) -> float:
    """An argument type: a number from 0."""
    if not 0 <= (value := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is below zero")
    return value


def share(text: str) -> float:
    """An argument type: a number from 0 up to, but not, 1."""
    if not 0 <= (value := float(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to below 1")
    return value


def count(text: str) -> int:
    """An argument type: a whole number from 1."""
    return _whole(text, 1)


def natural(text: str) -> int:
    """An argument type: a whole number from 0."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    if (value := int(text)) < least:
        raise argparse.ArgumentTypeError(f"{text} is less than {least}")
    return value
