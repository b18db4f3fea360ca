from __future__ import annotations

import pytest
from lhotse import SupervisionSegment

from steps.lang.targets import parse_target, target_language, target_text, targets_of
from utils.errors import UserError


def segment(text="bonjour", language="fr", custom=None) -> SupervisionSegment:
    return SupervisionSegment("u", "u", 0.0, 1.0, text=text, language=language, custom=custom)


FRENCH = segment(custom={"translation": {"en": "hello", "ru": "привет", "it": " "}})


def test_text_is_the_transcript_in_its_own_language():
    assert target_text(FRENCH, "text") == "bonjour"
    assert target_language(FRENCH, "text") == "fr"


def test_translation_is_the_one_named():
    assert target_text(FRENCH, "translation.ru") == "привет"
    assert target_language(FRENCH, "translation.ru") == "ru"


@pytest.mark.parametrize("target", ["translation.de", "translation.it"])
def test_no_or_blank_translation_is_none(target):
    assert target_text(FRENCH, target) is None
    assert target_text(segment(), target) is None
    assert target_text(segment(custom={"translation": None}), target) is None


def test_translation_into_its_own_language_only_if_asked_for():
    assert target_text(FRENCH, "translation.fr") is None
    assert target_text(FRENCH, "translation.fr", same_language=True) == "bonjour"
    assert target_text(FRENCH, "translation.en", same_language=True) == "hello"


def test_no_transcript_is_none():
    assert target_text(segment(text=None), "text") is None
    assert target_text(segment(text="  "), "text") is None


def test_targets_of():
    assert targets_of(segment()) == ["text"]
    assert targets_of(segment(text="", custom={"translation": {"ru": "a", "en": "b", "it": ""}})) == [
        "translation.en",
        "translation.ru",
    ]


@pytest.mark.parametrize("target", ["texts", "translation", "translation.", "translation.EN", "translation.en x", ""])
def test_malformed_target_is_refused(target):
    with pytest.raises(UserError, match=r"is not a target: give 'text'"):
        target_text(FRENCH, target)


def test_parse_target():
    assert parse_target("text") is None
    assert parse_target("translation.pt-BR") == "pt-BR"
