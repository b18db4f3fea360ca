"""What a run.sh declares (its stages, options, and who makes which file), and its command line read against that.

Only the standard library and little of it: this answers `--help` before there is an environment.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import re
import shlex
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from utils.errors import UserError, nearest

VALUE = r"""(?:"(?:[^"\\]|\\.)*"|'[^']*'|\$\([^)]*\)|[^\s"'#;$(]|\$\{?\w+\}?)*"""
ASSIGNMENT = re.compile(rf"([a-z]\w*)=({VALUE})(?=\s|$|;)")
# what stands before a command, or before a word that another word calls
CALL = r"(?:^|&&|\|\||;|!|\{|\)\"?|\b(?:do|then|else|in_turn|of [\w\"$]+))\s*"
FUNCTION = re.compile(r"(\w+)\(\)\s*\{")
STAGE = re.compile(r"""^\s*(?:if\s+)?stage\s+(\d+)\s+(?:"([^"]*)"|'([^']*)'|(\S+))""")
COMMON = {
    "stage": "start at this stage; what was done before and has not changed is skipped",
    "stop_stage": "stop after this stage; together with --stage: do these stages again",
    "force": "do every stage again, done before or not",
    "help": "show this and do nothing",
}
FLAGS = ("force", "help")
ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Recipe:
    """The declarations of one run.sh, read from its text."""

    doc: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)  # name -> default as written, unquoted
    descriptions: dict[str, str] = field(default_factory=dict)
    stages: dict[int, str] = field(default_factory=dict)  # number -> title
    makers: list[tuple[str, int]] = field(default_factory=list)  # (glob of an output, stage)


def unquote(text: str) -> str:
    """A shell word without its quotes."""
    try:
        return "".join(shlex.split(text))
    except ValueError:
        return text


def read_options(recipe: Recipe, lines: list[str]) -> None:
    """Options are the lower-case assignments above `. parse_options.sh`; a trailing comment describes them."""
    for line in lines:
        rest, names = line.strip(), []
        while match := ASSIGNMENT.match(rest):
            names.append((match[1], unquote(match[2])))
            rest = rest[match.end() :].lstrip(" \t;")
        if not names or not (not rest or rest.startswith(("#", ". parse_options.sh"))):
            continue
        comment = rest.partition("#")[2].strip()
        for name, default in names:
            recipe.options[name] = default
            recipe.descriptions[name] = comment


def outputs(command: str) -> list[str]:
    """The `--out` paths of the `run` commands in a piece of shell, `$variables` and `$(...)` as `*`."""
    found = []
    for call in re.findall(r"\brun\s+(.*?)\s--\s", command):
        call = re.sub(r"\$\([^)]*\)|\$\{[^}]*\}|\$\w+", "*", call)
        try:
            words = shlex.split(call)
        except ValueError:
            continue
        for at, word in enumerate(words[:-1]):
            if word == "--out":
                found += words[at + 1].split()
    return found


def filled_in(text: str, values: dict[str, str]) -> str:
    """`text` with what is known of its `$variables`: single words, and the patterns of name=$(printf 'a/%s' ...)."""
    values = {**dict(re.findall(r"^(\w+)=([\w./-]+)(?:\s+#.*)?$", text, re.MULTILINE)), **values}
    for name, _, template in re.findall(r"^\s*(\w+)=\$\(printf (['\"])(.+?)\2", text, re.MULTILINE):
        values[name] = put_in(template.replace("%s", "*").strip(), values)
    return put_in(text, values)


def put_in(text: str, values: dict[str, str]) -> str:
    """`text` with the values, each a single word, of its `$variables`."""
    for name, value in values.items():
        if re.fullmatch(r"[^\s$\\]+", value):
            text = re.sub(rf"\$({name}\b|{{{name}}})", value, text)
    return text


def read_makers(recipe: Recipe, lines: list[str]) -> None:
    """Stages and what their commands make; what a function makes, the stages that call it make."""
    number, function, makes = None, None, {}
    for line in lines:
        if line.lstrip().startswith("#"):
            continue
        if match := STAGE.match(line):
            number = int(match[1])
            recipe.stages.setdefault(number, match[2] or match[3] or match[4] or "")
        if match := FUNCTION.match(line):
            function = match[1]
        found = [pattern for pattern in outputs(line) if not pattern.startswith("*")]
        for name in makes if function or number is not None else ():
            found += makes[name] if re.search(CALL + rf"{name}\b", line) and name != function else []
        if function:
            makes.setdefault(function, []).extend(found)
            function = None if line.rstrip().endswith("}") and (match or line.startswith("}")) else function
        elif number is not None:
            recipe.makers += [(pattern, number) for pattern in found]


def read_recipe(script: str | Path, given: dict[str, str] | None = None) -> Recipe:
    """Parse a run.sh (called with the options `given`); what is not recognised is left out, never an error."""
    text = Path(script).read_text("utf-8").replace("\\\n", " ")
    lines, recipe = text.splitlines(), Recipe()
    for line in lines[1:]:
        if not line.startswith("#"):
            break
        if not line.startswith("# shellcheck "):
            recipe.doc.append(re.sub("^# ?", "", line))
    border = next((n for n, line in enumerate(lines) if re.match(r"[^#]*\. parse_options\.sh", line)), len(lines) - 1)
    read_options(recipe, lines[: border + 1])
    body = "\n".join([*sourced(lines[border + 1 :]), *lines[border:]])
    read_makers(recipe, filled_in(body, {**recipe.options, **(given or {})}).splitlines())
    return recipe


def sourced(lines: list[str]) -> list[str]:
    """The lines of the files beside this one and in steps/ that a recipe sources by their names (`. words.sh`)."""
    names = [match[1] for line in lines if (match := re.match(r"\. (\w+\.sh)\b", line))]
    places = [ROOT / folder / name for name in names for folder in ("utils", "steps")]
    return [
        line for path in places if path.exists() for line in path.read_text("utf-8").replace("\\\n", " ").splitlines()
    ]


def maker(recipe: Recipe, path: str) -> int | None:
    """The stage whose `run ... --out` makes `path` (the file itself, its folder, or something in it), if any does."""
    parts, best = Path(path).parts, None
    for pattern, number in recipe.makers:
        if fnmatch.fnmatch(path, pattern):  # a star may stand for several folders
            best = best or ((0, 0, 0), number)
        globs = Path(pattern).parts
        pairs = list(zip(parts, globs))  # noqa: B905  the shorter one is a folder of the longer
        if not all(fnmatch.fnmatch(part, glob) or fnmatch.fnmatch(glob, part) for part, glob in pairs):
            continue
        named = sum(len(glob.replace("*", "")) for _, glob in pairs)
        rank = (len(pairs), -abs(len(parts) - len(globs)), named)
        if best is None or rank > best[0]:
            best = (rank, number)
    return best[1] if best else None


def help_text(recipe: Recipe, typed: str) -> str:
    """The answer to --help: what the recipe does, its stages and its options with defaults."""
    shown = {name.replace("_", "-"): text for name, text in COMMON.items()}
    rows = [(f"--{name}" + ("" if name in FLAGS else " N"), text) for name, text in shown.items()]
    own = [
        (f"--{name.replace('_', '-')} {shlex.quote(default)}", recipe.descriptions[name])
        for name, default in recipe.options.items()
        if name not in COMMON
    ]
    width = min(40, max(len(left) for left, _ in rows + own) + 2)
    table = {"options": rows, "options of this recipe, with their defaults": own}
    out = [*recipe.doc, "", f"usage: bash {typed} [--option value | --option=value | option=value ...]", "", "stages:"]
    out += [f"  {number}  {title}" for number, title in sorted(recipe.stages.items())]
    for title, lines in table.items():
        out += ["", f"{title}:"] + [f"  {left:<{width - 1}} {right}" for left, right in lines] if lines else []
    return "\n".join(out)


def check_value(name: str, value: str, default: str) -> None:
    """Refuse a value of another kind than the default's: a number for a number, true or false for true or false."""
    option = "--" + name.replace("_", "-")
    if default in ("true", "false") and value not in ("true", "false"):
        raise UserError(f"{option} takes true or false, not '{value}'.")
    if re.fullmatch(r"-?\d+", default) and not re.fullmatch(r"-?\d+", value):
        raise UserError(f"{option} takes a whole number, not '{value}'.")
    if re.fullmatch(r"-?\d*\.\d+|-?\d+e-?\d+", default) and not re.fullmatch(r"-?\d*\.?\d+(e-?\d+)?", value):
        raise UserError(f"{option} takes a number, not '{value}'.")


def read_arguments(recipe: Recipe, arguments: list[str]) -> dict[str, str]:
    """`arguments` as {name: value}; `UserError` for what the recipe does not know, with the nearest that it does."""
    defaults = {"stage": "0", "stop_stage": "99", **recipe.options}
    given: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "-h":
            word = "--help"
        left, equals, value = word.partition("=")
        name = left.lstrip("-").replace("-", "_")
        if not (left.startswith("--") or equals) or left.startswith("---"):
            raise UserError(f"'{word}' is not an option: write --option value or option=value; see --help.")
        if name not in defaults and name not in FLAGS:
            valid = ["--" + known.replace("_", "-") for known in [*COMMON, *recipe.options]]
            raise UserError(f"Unknown option {left}{nearest('--' + name.replace('_', '-'), valid)}; see --help.")
        if name in FLAGS:
            if equals and value not in ("true", "false"):
                raise UserError(f"--{name} takes no value, not '{value}'.")
            if value != "false":
                given[name] = "true"
            continue
        if not equals and defaults[name] == "false" and (not rest or rest[0].startswith("--")):
            value = "true"  # a switch needs no value
        elif not equals:
            if not rest or rest[0].startswith("--"):
                example = f", for instance {left} {shlex.quote(defaults[name])}" if defaults[name] else ""
                raise UserError(f"{left} needs a value{example}.")
            value = rest.pop(0)
        check_value(name, value, defaults[name])
        given[name] = value
    if "help" not in given:
        check_stages(recipe, given)
    return given


def check_stages(recipe: Recipe, given: dict[str, str]) -> None:
    """Refuse a range of stages that holds none."""
    first = int(given.get("stage", recipe.options.get("stage", 0)))
    last = int(given.get("stop_stage", recipe.options.get("stop_stage", 99)))
    if recipe.stages and not any(first <= number <= last for number in recipe.stages):
        known = ", ".join(f"{number} {title}" for number, title in sorted(recipe.stages.items()))
        raise UserError(f"No stage from {first} to {last}: this recipe has {known}.")


def shell_code(recipe: Recipe, given: dict[str, str], arguments: list[str]) -> str:
    """Shell assignments for parse_options.sh: the recipe's options, the stages, and what `resume` must repeat."""
    again = "force" in given or {"stage", "stop_stage"} <= set(given)
    repeated = [f"--{name.replace('_', '-')} {shlex.quote(value)}" for name, value in given.items() if name != "stage"]
    own = {name: value for name, value in given.items() if name not in COMMON}
    values = {
        "DRAGOMAN_STAGE": given.get("stage", recipe.options.get("stage", "0")),
        "DRAGOMAN_STOP_STAGE": given.get("stop_stage", recipe.options.get("stop_stage", "99")),
        "DRAGOMAN_OPTIONS": " ".join(repeated),
        "DRAGOMAN_AGAIN": " ".join(map(shlex.quote, arguments)) if again else "",
        "DRAGOMAN_BEGAN": repr(time.time()),
        "DRAGOMAN_GIVEN": json.dumps(own),
        **own,
    }
    return "\n".join(f"{name}={shlex.quote(value)}" for name, value in values.items())


def main() -> int:
    """Exit status: 0, 2 for a mistake in the options, 100 when --help was answered (`--answer`)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--script", required=True, help="the run.sh")
    parser.add_argument("--typed", help="how the user named it")
    parser.add_argument("--answer", action="store_true", help="print no assignments, only help or the mistake")
    parser.add_argument("arguments", nargs="*")
    args = parser.parse_args()
    recipe = read_recipe(args.script)
    try:
        given = read_arguments(recipe, args.arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if "help" in given:
        text = help_text(recipe, args.typed or args.script)
        print(text if args.answer else f"printf '%s\\n' {shlex.quote(text)}; exit 0")
        return 100 if args.answer else 0
    if not args.answer:
        print(shell_code(recipe, given, args.arguments))
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # run.sh --help | head
    sys.exit(main())
