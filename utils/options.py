"""Command lines (argparse) and YAML configs (pydantic) that refuse what they do not know and name the nearest."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from utils.errors import UserError, nearest
from utils.files import require, write_text


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

    def error(self, message: str) -> NoReturn:
        if found := re.search(r"unrecognized arguments: (--[\w-]+)", message):
            commands = [action.choices for action in self._actions if isinstance(action, argparse._SubParsersAction)]
            parsers = [self, *(parser for choices in commands for parser in choices.values())]
            message += nearest(found[1], {name for parser in parsers for name in parser._option_string_actions})
        print(f"error: {self.prog}: {message}; see --help.", file=sys.stderr)
        sys.exit(2)


class Config(BaseModel):
    """Base of every config: unknown keys are refused, values are checked, numbers such as 1e-3 are read as numbers."""

    model_config = ConfigDict(extra="forbid", validate_default=True)


C = TypeVar("C", bound=BaseModel)


def load_yaml(path: str | Path) -> dict:
    """The mapping in a YAML file; `UserError` when it is missing, malformed, or not a mapping."""
    try:
        values = yaml.safe_load(require(path).read_text("utf-8"))
    except yaml.YAMLError as error:
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
        node[last] = yaml.safe_load(text)
    return values


def _keys_at(model: type[BaseModel], location: tuple) -> list[str]:
    """The field names valid at the parent of `location`, as far as the model's annotations tell."""
    for part in location[:-1]:
        field = model.model_fields.get(part) if isinstance(part, str) else None
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)


def check_config(values: dict, model: type[C], source: str) -> C:
    """`values` as a checked `model`; `UserError` naming `source`, the key, and the nearest valid key."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        location = tuple(first["loc"])
        key = ".".join(str(part) for part in location)
        if first["type"] == "extra_forbidden":
            what = f"unknown key '{key}'{nearest(str(location[-1]), _keys_at(model, location))}"
        elif first["type"] == "missing":
            what = f"the key '{key}' is missing"
        elif first["type"] == "value_error":  # a check of ours, of a section or of the whole
            what = (f"{key}: " if key else "") + str(first["ctx"]["error"])
        else:
            what = f"'{key}' = {first['input']!r}: {first['msg']}"
        raise UserError(f"{source}: {what}.") from None


def load_config(path: str | Path, model: type[C], assignments: list[str] | None = None) -> C:
    """A YAML file with overrides applied, as a checked `model`."""
    return check_config(override(load_yaml(path), assignments or []), model, str(path))


def save_config(path: str | Path, config: BaseModel) -> None:
    """Write `config` as YAML, atomically."""
    write_text(path, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True))
