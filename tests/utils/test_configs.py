"""Configs: the sentence for a wrong key, value or kind, with the nearest right name, however deep it is."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field, model_validator

from utils.errors import UserError
from utils.fingerprint import fingerprint, same
from utils.options import Config, check_config, load_config, load_yaml, override


class Adam(Config):
    name: Literal["adam"] = "adam"
    lr: float = 0.1
    weight_decay: float = 0.0


class Sgd(Config):
    name: Literal["sgd", "nesterov"]
    momentum: float = Field(0.9, lt=2)

    @model_validator(mode="after")
    def _check(self):
        if self.momentum < 0:
            raise ValueError("momentum goes forward")
        return self


class Inner(Config):
    width: int = 3


class Whole(Config):
    optimizer: Annotated[Adam | Sgd, Field(discriminator="name")] = Adam()
    inner: Inner = Inner()
    maybe: Inner | None = None
    path: str


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"pth": "x"}, r"conf: unknown key 'pth' \(did you mean 'path'\?\)\.|conf: the key 'path' is missing\."),
        ({"path": "x", "inner": {"widht": 3}}, r"conf: unknown key 'inner\.widht' \(did you mean 'width'\?\)\."),
        ({"path": "x", "maybe": {"widht": 3}}, r"unknown key 'maybe\.widht' \(did you mean 'width'\?\)"),
        (
            {"path": "x", "optimizer": {"name": "adam", "weight_deacy": 1}},
            r"unknown key 'optimizer\.weight_deacy' \(did you mean 'weight_decay'\?\)",
        ),
        ({"path": "x", "optimizer": {"name": "sgd", "momentum": "a"}}, r"'optimizer\.momentum' = 'a': Input should be"),
        (
            {"path": "x", "optimizer": {"name": "nesterov", "momentm": 1}},
            r"key 'optimizer\.momentm' \(did you mean 'mo",
        ),
        ({"path": "x", "optimizer": {"name": "nesterov", "momentum": -1}}, r"conf: optimizer: momentum goes forward\."),
        (
            {"path": "x", "optimizer": {"name": "adm"}},
            r"optimizer\.name = 'adm': it is one of adam, sgd, nesterov \(did you mean 'ad",
        ),
        ({"path": "x", "optimizer": {"lr": 1}}, r"the section 'optimizer' needs a 'name'"),
        ({"path": "x", "inner": 5}, r"'inner' = 5: Input should be a valid dictionary"),
        ({}, r"the key 'path' is missing"),
    ],
)
def test_a_mistake_is_one_sentence(values, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        check_config(values, Whole, "conf")
    assert "\n" not in str(caught.value)


def test_overrides_reach_any_depth_and_are_read_as_yaml(tmp_path):
    (tmp_path / "a.yaml").write_text("path: x\n")
    assignments = ["optimizer={name: sgd}", "inner.width=7", "optimizer.momentum=1e-1"]
    config = load_config(tmp_path / "a.yaml", Whole, assignments)
    assert config.inner.width == 7 and config.optimizer == Sgd(name="sgd", momentum=0.1)
    with pytest.raises(UserError, match="not of the form key=value"):
        override({}, ["lr"])
    with pytest.raises(UserError, match="'path' holds a value, not a section"):
        override({"path": "x"}, ["path.a=1"])


@pytest.mark.parametrize("value", ["[1", "{a: [", "2020-13-45", "@x", "a: b: c"])
def test_an_override_that_is_not_yaml(value):
    with pytest.raises(UserError, match=r"Override 'inner\.width=.*': the value is not YAML") as caught:
        override({}, [f"inner.width={value}"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("path: é\n".encode("latin-1"), "is not text in UTF-8"),
        (b"\x80\x02\x00PK", "is not text in UTF-8"),
        (b"path: [x", "is not YAML"),
        (b"path: \x07", "is not YAML"),
        (b"path: 2020-13-45", "is not YAML"),
        (b"- x", "must hold 'key: value' lines"),
    ],
)
def test_a_file_that_is_no_config(tmp_path, content, sentence):
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(UserError, match=f"a.yaml {sentence}") as caught:
        load_config(tmp_path / "a.yaml", Whole)
    assert "\n" not in str(caught.value)


def write(folder, **files):
    """`<name>.yaml` files in `folder`."""
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / "top.yaml"


def test_a_file_lies_over_its_bases_key_by_key(tmp_path):
    (tmp_path / "below").mkdir()
    write(tmp_path / "below", deep="optimizer: {name: adam, lr: 0.5}\nsizes: [1, 2, 3]\n")
    write(tmp_path, one="base: below/deep.yaml\ninner: {width: 1}\n", two="inner: {width: 2, height: 2}\n")
    top = write(
        tmp_path, top="base: [one.yaml, 'two.yaml']  # both\ninner: {height: 3}\nsizes: [4]\noptimizer: {lr: 1}\n"
    )
    assert load_yaml(top) == {
        "optimizer": {"name": "adam", "lr": 1},
        "sizes": [4],
        "inner": {"width": 2, "height": 3},
    }
    write(tmp_path, top="base: one.yaml\noptimizer: {name: sgd}\n")  # another kind takes none of Adam's keys
    assert load_yaml(top)["optimizer"] == {"name": "sgd"} and load_yaml(top)["inner"] == {"width": 1}


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (
            {"top": "base: a.yaml\n", "a": "base: top.yaml\n"},
            r"is based on itself \(top\.yaml -> a\.yaml -> top\.yaml\)",
        ),
        ({"top": "base: no.yaml\n"}, r"top\.yaml is based on .*no\.yaml, which does not exist"),
        ({"top": "base:\n  - a.yaml\n", "a": "x: 1\n"}, "write the base in one line"),
        ({"top": "base:\n"}, "write the base in one line"),
        ({"top": "base: [a.yaml,\n b.yaml]\n", "a": "x: 1\n", "b": "x: 1\n"}, "write the base in one line"),
        ({"top": "base: a.yaml\n", "a": "- x\n"}, r"a\.yaml must hold 'key: value' lines"),
    ],
)
def test_a_wrong_base_is_one_sentence(tmp_path, files, sentence):
    top = write(tmp_path, **files)
    with pytest.raises(UserError, match=sentence) as caught:
        load_yaml(top)
    assert "\n" not in str(caught.value)


def test_a_base_that_changed_has_changed_the_file(tmp_path):
    write(tmp_path, deep="x: 1\n", one='base: "deep.yaml"\n', two="y: 1\n")
    top = write(tmp_path, top="base: [one.yaml, two.yaml]\n")
    before = fingerprint([str(top)])
    assert {path.rsplit("/", 1)[1] for path in before} == {"top.yaml", "one.yaml", "two.yaml", "deep.yaml"}
    for name in ("deep", "two"):
        write(tmp_path, **{name: "x: 2\n"})
        after = fingerprint([str(top)], before)
        assert not same(before, after)
        before = after
    write(tmp_path, deep="base: top.yaml\n")  # in a ring each counts once
    assert len(fingerprint([str(tmp_path)])) == 4
