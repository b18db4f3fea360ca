"""Spelling mistakes of Asterisk's prompt lists: the Spanish one mostly has no accents, all five have typing errors.

Corrected so that a word is spelt in one way throughout; what is said stays as it is, and `raw_text` keeps the original.
Applied to normalised text (lower case, no punctuation, Russian without ё).
"""

from __future__ import annotations

import re

# "wrong right", one word each; right may hold a blank written as _.
_WORDS = {
    "en": """fourtieth fortieth  umute unmute  represenatives representatives  exclaimation-point exclamation_point
        un-indentified unidentified  witheld withheld  thru through""",
    "es": """atras atrás  atravez a_través  aun aún  autenticacion autenticación  ayudaran ayudarán  busqueda búsqueda
        buzon buzón  codigo código  comenzara comenzará  comprendi comprendí  conexion conexión
        configuracion configuración  contrasena contraseña  contrasenas contraseñas  contrasenia contraseña
        cortes cortés  decimo décimo  defeto defecto  demonstracion demostración  demostracion demostración
        despues después  dieciseis dieciséis  digitos dígitos  dolar dólar  dolares dólares  duodecimo duodécimo
        duracion duración  entidade entidades  escucharas escucharás  estan están  estandar estándar  esten estén
        exclamacion exclamación  extension extensión  fisico físico  grabacion grabación  guiare guiaré
        informacion información  ingese ingrese  ingresara ingresará  intentare intentaré  introduccion introducción
        introdusca introduzca  invalida inválida  invalido inválido  japon japón  lider líder  linea línea  logre logré
        manana mañana  maria maría  mas más  menu menú  mesaje mensaje  miercoles miércoles  millon millón
        minimos mínimos  modem módem  navegara navegará  nimbre nombre  numbre nombre  numerico numérico  numero número
        opcion opción  paracambiar para_cambiar  proposito propósito  proximo próximo  rapidamente rápidamente
        re-enviado reenviado  reproduccion reproducción  sabado sábado  septimo séptimo  sera será  tambien también
        tecleo tecleó  tecnica técnica  telefonico telefónico  telefono teléfono  tendra tendrá  trés tres
        trigesimo trigésimo  ultimo último  undecimo undécimo  unica única  unira unirá  uniran unirán  util útil
        vacias vacías  valido válido  victor víctor  veintidos veintidós  veintiseis veintiséis  veintitres veintitrés
        vigesimo vigésimo  ó o""",
    "fr": """abregée abrégée  appellant appelant  aurevoir au_revoir  autorise autorisé  boite boîte
        conctact contacte  connection connexion
        d'acceuil d'accueil  desirez désirez  desole désolé  desolé désolé  déverouillée déverrouillée
        dévérouillée déverrouillée  dévérouiller déverrouiller  démontration démonstration  enleve enlevé  etait était
        ete été  etes êtes  etre être  étez été  étés été  felicitation félicitations  j'essai j'essaie
        j'établi j'établis  l'appellant l'appelant  l'ecouter l'écouter  millardième milliardième  n'etes n'êtes
        numero numéro  occupes occupés  pous pour  premieres premières  presentement présentement
        présentemnet présentement  problemes problèmes  rappler rappelé  re-enregistrer ré-enregistrer
        reessayer réessayer  répétér répéter  seixième seizième  simultane simultané  somme sommes
        telephone téléphone  telephoner téléphoner  verouillée verrouillée  vérouillée verrouillée
        vérouiller verrouiller  vérrouiller verrouiller""",
    "it": "perpiacere per_piacere  cassella casella  menù menu",
    "ru": """взездочка звездочка  завршить завершить  октрября октября  по-этому поэтому  увеличиения увеличения""",
}
_WORDS = {
    language: {wrong: right.replace("_", " ") for wrong, right in zip(*[iter(pairs.split())] * 2, strict=True)}
    for language, pairs in _WORDS.items()
}
# What only the neighbouring words decide.
_PHRASES = {
    "es": [
        (r"\besta (?!persona\b|conferencia\b|grabación\b|demostración\b|prueba\b|vez\b|es\b)", "está "),
        (r"\bmudo mudo\b", "modo mudo"),
        (r"\bno se quien\b", "no sé quién"),
        (r"\b(a|en) que carpeta\b", r"\1 qué carpeta"),
    ],
    "fr": [
        (r"\b(qu')?a (?=nouveau\b|jour\b|partir\b|votre\b|l'avenir\b|joindre\b|l'extension\b)", r"\1à "),
        (r"\bvous avez entrer\b", "vous avez entré"),
        (r"\bce tte\b", "cette"),
    ],
    "it": [(r"\bun altra\b", "un'altra")],
    "ru": [(r"\bчто бы\b", "чтобы"), (r"\bчтобы бы\b", "чтобы"), (r"\bза тем нажмите\b", "затем нажмите")],
}
_PHRASES = {
    language: [(re.compile(pattern), right) for pattern, right in pairs] for language, pairs in _PHRASES.items()
}


def correct(text: str, language: str) -> str:
    """Normalised `text` with the known mistakes of its list put right."""
    words = _WORDS.get(language, {})
    text = " ".join(words.get(word, word) for word in text.split())
    for pattern, right in _PHRASES.get(language, []):
        text = pattern.sub(right, text)
    return text
