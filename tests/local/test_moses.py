"""Moses' tokens and lower case undone; the expected texts are those of Moses' own detokenizer.perl -l fr."""

from __future__ import annotations

import pytest

from local.moses import detokenise_french, restore_case


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ("l&apos; habit a séché au soleil", "l'habit a séché au soleil"),
        ("attends-moi , j&apos; arrive .", "attends-moi, j'arrive."),
        ("celui-ci est l&apos; assesseur , aujourd&apos; hui", "celui-ci est l'assesseur, aujourd'hui"),
        ("une grande honte; le jour où on l&apos; avait pris", "une grande honte; le jour où on l'avait pris"),
        ("50 francs &amp; 3,5 mètres", "50 francs & 3,5 mètres"),
        ("  deux   mots ", "deux mots"),
        ("e\u0301te\u0301", "été"),
    ],
)
def test_tokens_become_text_as_moses_has_it(tokens: str, text: str):
    assert detokenise_french(tokens) == text


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ("il n &apos; y en a pas", "il n'y en a pas"),
        ("sa manière de t &apos; &apos; attendre", "sa manière de t'attendre"),
        ("il dit : &quot; tout est accompli &quot; .", 'il dit: "tout est accompli".'),
    ],
)
def test_stray_apostrophes_and_quotes_close_up(tokens: str, text: str):
    assert detokenise_french(tokens) == text


@pytest.mark.parametrize(
    ("lowered", "original", "cased"),
    [
        ("le manioc de mbonga", "Le manioc de Mbonga", "Le manioc de Mbonga"),
        ("son père m'a élevé à boundji", "Son père m'a élévé à  Boundji", "Son père m'a élevé à Boundji"),
        ("l'enfant est allé", "L'en fant est ellé", "L'enfant est allé"),
        ("dans notre village, mvunzu", "Dans notre vil- lage,Mvunzu", "Dans notre village, Mvunzu"),
        ("été", "Été", "Été"),
        ("rien", "", "rien"),
    ],
)
def test_capitals_come_back_and_the_spelling_stays(lowered: str, original: str, cased: str):
    assert restore_case(lowered, original) == cased
    assert cased.lower() == lowered


def test_a_capital_that_is_two_letters_in_lower_case_does_not_shift_the_rest():
    assert restore_case("izmir est loin de Paris".lower(), "İzmir est loin de Paris")[-5:] == "Paris"
