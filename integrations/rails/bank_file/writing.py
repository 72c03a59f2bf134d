"""What a bank file may hold as text: the basic Latin set of EPC217-08, and how other writing is brought to it.

Latin letters lose their marks, Greek and Cyrillic are transliterated letter by letter; the same text always gives the same.
Other scripts are refused rather than guessed at: a bank compares the name with the account's holder, and money that goes to a
name which a table has invented comes back weeks later, if at all.
"""

import unicodedata
from typing import Final

ALLOWED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/-?:().,'+ ")
"""The basic set: what every bank takes (EPC217-08, section 1)."""

_PUNCTUATION: Final = {
    **dict.fromkeys("!#$%*<=>@^~|", "."),
    **dict.fromkeys('"`´‘’‚“”„«»‹›ʹʻʼʽʾʿ′″', "'"),
    **dict.fromkeys("_‐‑‒–—―−", "-"),
    **dict.fromkeys("[{", "("),
    **dict.fromkeys("]}", ")"),
    "&": "+",
    ";": ",",
    "\\": "/",
    "¿": "?",
    "¡": ".",
    "·": ".",
    "€": "E",
}
_LATIN: Final = {
    "ß": "ss",
    "ẞ": "SS",
    "Æ": "AE",
    "æ": "ae",
    "Œ": "OE",
    "œ": "oe",
    "Ø": "O",
    "ø": "o",
    "Đ": "D",
    "đ": "d",
    "Ð": "D",
    "ð": "d",
    "Ħ": "H",
    "ħ": "h",
    "ı": "i",
    "ĸ": "k",
    "Ł": "L",
    "ł": "l",
    "Ŋ": "N",
    "ŋ": "n",
    "Þ": "TH",
    "þ": "th",
    "Ŧ": "T",
    "ŧ": "t",
    "Ə": "E",
    "ə": "e",
    "Ɓ": "B",
    "ɓ": "b",
    "Ɗ": "D",
    "ɗ": "d",
    "Ɖ": "D",
    "ɖ": "d",
    "Ƙ": "K",
    "ƙ": "k",
    "Ƴ": "Y",
    "ƴ": "y",
    "Ɛ": "E",
    "ɛ": "e",
    "Ɔ": "O",
    "ɔ": "o",
    "Ɩ": "I",
    "ɩ": "i",
    "Ʊ": "U",
    "ʊ": "u",
}


def _table(pairs: str) -> dict[str, str]:
    """``"ΑA ΒV ΘTH"``: each word is a letter and its spelling."""
    return {word[0]: word[1:] for word in pairs.split()}


# ELOT 743
_GREEK: Final = _table("ΑA ΒV ΓG ΔD ΕE ΖZ ΗI ΘTH ΙI ΚK ΛL ΜM ΝN ΞX ΟO ΠP ΡR ΣS ΤT ΥY ΦF ΧCH ΨPS ΩO")
_CYRILLIC: Final = _table(
    # Bulgaria's transliteration act, the one Cyrillic of the euro area
    "АA БB ВV ГG ДD ЕE ЖZH ЗZ ИI ЙY КK ЛL МM НN ОO ПP РR СS ТT УU ФF ХH ЦTS ЧCH ШSH ЩSHT ЪA ЬY ЮYU ЯYA"
    # and those of other languages
    " ЁE ЫY ЭE ЄYE ІI ЇYI ҐG ЎU ЈJ ЉLJ ЊNJ ЋC ЂD ЏDZ ЅDZ ЃG ЌK ҒGH ҚQ ҲH ҶJ ӢI ӮU ҢN ӨO ҮU"
)
_OTHER: Final = {
    **_PUNCTUATION,
    **_LATIN,
    **_GREEK,
    **_CYRILLIC,
    **{upper.lower(): latin.lower() for upper, latin in (*_GREEK.items(), *_CYRILLIC.items())},
    "ς": "s",
}


class Unwritable(ValueError):
    """The text holds a character that no table brings to the basic set; which one is not said, it is a person's."""


def written(text: str, characters_max: int) -> str:
    """`text` in the basic set, with single spaces, cut at ``characters_max``. Raises `Unwritable`, also for what has no letter."""
    # composed first: и and й are two letters, though one is written as the other with a mark
    composed = unicodedata.normalize("NFC", text)
    latin = "".join(_letters(character) for character in composed)
    plain = " ".join(latin.split())[:characters_max].rstrip()
    if not any(character.isalnum() for character in plain):
        raise Unwritable("nothing is left that a bank could read")
    return plain


def _letters(character: str) -> str:
    if character in ALLOWED:
        return character
    if character in _OTHER:
        return _OTHER[character]
    if character.isspace():
        return " "
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return ""  # a mark, or what can't be seen
    parts = unicodedata.normalize("NFKD", character)
    if parts == character:
        raise Unwritable("a character has no Latin spelling")
    return "".join(_letters(part) for part in parts)
