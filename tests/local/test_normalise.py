"""Transcript normalisation, on lines of the real prompt lists."""

from __future__ import annotations

import unicodedata

import pytest

from local.asterisk_spelling import correct
from local.text import check_language, normalise, spelling
from utils.errors import UserError


@pytest.mark.parametrize(
    ("language", "raw", "expected"),
    [
        (
            "en",
            "Please press 1 to mute or unmute yourself, 2 to lock.",
            "please press one to mute or unmute yourself two to lock",
        ),
        ("en", "press * to toggle pause, press # to enter", "press star to toggle pause press pound to enter"),
        ("en", "3D audio disabled", "three d audio disabled"),
        ("en", "at least a 28.8 kilobit modem", "at least a twenty-eight point eight kilobit modem"),
        ("en", "visit www.asterisk.org.", "visit www dot asterisk dot org"),
        ("en", "A.M.", "a m"),
        ("en", "To re-record it.", "to re-record it"),
        ("en", "... letters of your party's last name.", "letters of your party's last name"),
        ("en", "[sound of monkeys screaming]", ""),
        ("en", "<beep ascending>", ""),
        ("en", "(10 seconds of silence)", ""),
        ("en", "dash [-]", "dash"),
        ("en", "space [ ]", "space"),
        ("en", "dial 'answer' - and hang up", "dial answer and hang up"),
        ("es", "Cuatro u seis; ¿bajar el volumen?", "cuatro u seis bajar el volumen"),
        ("es", "Carpeta 5", "carpeta cinco"),
        ("es", "Mañana", "mañana"),
        ("fr", "Veuillez composer les 3 premières lettres", "veuillez composer les trois premières lettres"),
        ("fr", "“Pour quitter, appuyez sur 8.”", "pour quitter appuyez sur huit"),
        ("fr", "appuyez sur * pour revenir", "appuyez sur étoile pour revenir"),
        ("fr", "s'il-vous-plaît", "s'il-vous-plaît"),
        ("fr", "Q, ..., d’un", "q d'un"),
        ("it", "E' in uso.", "è in uso"),
        ("it", "nell’elenco…", "nell'elenco"),
        ("it", "un modem da 28Kilobit", "un modem da ventotto kilobit"),
        ("ru", "нажмите решётку.", "нажмите решетку"),
        ("ru", "первoe", "первое"),  # with a Latin o and e
        ("ru", "2 - чтобы заблокировать / разблокировать", "два чтобы заблокировать разблокировать"),
        ("ru", "на скорости не ниже 28,8 килобит", "на скорости не ниже двадцать восемь целых восемь десятых килобит"),
        ("ru", "ПИН-код, «решётка»", "пин-код решетка"),
        ("ru", "аш-323", "аш триста двадцать три"),
        ("ru", "для буквы «Q»", "для буквы q"),
    ],
)
def test_real_lines(language: str, raw: str, expected: str):
    assert normalise(raw, language) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("It cost $10,000 in the 1990s (Laughter).", "it cost 10,000 in the 1990s"),
        ("2.5, or 3 percent?", "2.5 or 3 percent"),
        ("At 9:30, 24/7.", "at 9 30 24 7"),
        ("the T-1000 and Apollo 13.", "the t-1000 and apollo 13"),
    ],
)
def test_digits_stay_where_that_is_wanted(raw: str, expected: str):
    assert normalise(raw, "en", digits=True) == expected
    assert normalise(expected, "en", digits=True) == expected


@pytest.mark.parametrize("language", ["en", "es", "fr", "it", "ru"])
def test_every_number_is_spelt_without_digits_and_normalising_again_changes_nothing(language: str):
    for number in [*range(0, 120), 500, 1234, 8500, 1_000_000]:
        text = normalise(f"marca {number}.", language)
        assert not any(character.isdigit() for character in text)
        assert normalise(text, language) == text


def test_composed_and_decomposed_letters_are_the_same():
    for form in ("NFC", "NFD"):
        assert normalise(unicodedata.normalize(form, "Numéro supprimé"), "fr") == "numéro supprimé"


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("es", "la consola esta ocupada o no esta disponible", "la consola está ocupada o no está disponible"),
        ("es", "ha sido expulsado de esta conferencia", "ha sido expulsado de esta conferencia"),
        ("es", "no se quien ha enviado", "no sé quién ha enviado"),
        ("es", "su contrasena por favor", "su contraseña por favor"),
        ("fr", "veuillez essayer a nouveau", "veuillez essayer à nouveau"),
        ("fr", "a quitté la conférence", "a quitté la conférence"),
        ("it", "un momento perpiacere", "un momento per piacere"),
        ("ru", "что бы выйти из меню", "чтобы выйти из меню"),
        ("en", "un-indentified or witheld", "unidentified or withheld"),
    ],
)
def test_spelling(language: str, text: str, expected: str):
    assert correct(text, language) == expected


@pytest.mark.parametrize(
    ("wrong", "hint"), [("english", "did you mean 'en'?"), ("frr", "did you mean 'fr'?"), ("xx", "choose from")]
)
def test_unknown_language_names_the_nearest(wrong: str, hint: str):
    with pytest.raises(UserError, match=f"Unknown language '{wrong}'") as error:
        check_language(wrong)
    assert hint in str(error.value)


@pytest.mark.parametrize(
    ("language", "raw", "expected"),
    [
        ("fr", "L’« Ardoise » (Gard) : 30 % d'eau, peut-être !", "l ardoise gard 30 d'eau peut-être"),
        ("ca", "Col·lecció d’en Pere - 1.", "col lecció d'en pere 1"),
        ("tr", "Isparta'dan İzmir'e!", "ısparta'dan izmir'e"),
        ("de", "STRASSE, „Straße“", "strasse straße"),
        ("ar", "من اخترع هذه الآلة ؟", "من اخترع هذه الآلة"),
        ("fa", "این مؤلفه\u200cهای «داده»،", "این مؤلفه\u200cهای داده"),
        ("ta", "இந்த தரவு கூறுகள்.", "இந்த தரவு கூறுகள்"),
        ("zh", "他说：“你好。”", "他说 你好"),
        ("ja", "終わりよければ、すべてよし。", "終わりよければ すべてよし"),
        ("cy", "Mae'r cyswllt\u00a0gwe wedi torri…", "mae'r cyswllt gwe wedi torri"),
    ],
)
def test_spelling_is_all_that_is_left_in_any_language(language: str, raw: str, expected: str):
    assert spelling(raw, language) == expected == spelling(expected, language)
