"""Whether two spellings are one person's name: what a rail calls an account's holder, and what the member calls the payee."""

import unicodedata
from collections import Counter
from typing import Final

_MARKS_THAT_ARE_SPELLING: Final = ((0x0300, 0x036F), (0x064B, 0x065F), (0x0670, 0x0670))
"""Accents of Latin, Greek and Cyrillic, and Arabic vowel signs. Marks of other scripts are letters' worth and stay."""
_SAME_LETTER: Final = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "ħ": "h", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th"}
)
_WITHIN_A_WORD: Final = "'’‘ʼ`´"
_WORDS_IN_COMMON_MIN: Final = 2


def is_same_name(one: str, other: str) -> bool:
    """Whether two names are one, whatever their case, accents, punctuation and order.

    One side may leave names out that the other has (a middle name, a second surname), if at least two are common to both; a
    single name is only the same as itself. Initials stand for no name.
    """
    words, others = _words(one), _words(other)
    common = words & others
    if not common:
        return False
    if words == others:
        return True
    return common in (words, others) and common.total() >= _WORDS_IN_COMMON_MIN


def is_masked(name: str) -> bool:
    """Whether a rail hides a part of the name (``J*** D**``), so that it can't be compared."""
    return any(sign in name for sign in "*•█")


def _words(name: str) -> Counter[str]:
    """The name's words in one spelling, each as often as it occurs."""
    plain = unicodedata.normalize("NFKD", name.casefold()).casefold().translate(_SAME_LETTER)
    kept = "".join(
        sign if _is_of_a_word(sign) else " "
        for sign in plain
        if sign not in _WITHIN_A_WORD and not _is_spelling(sign)
    )
    return Counter(kept.split())


def _is_of_a_word(sign: str) -> bool:
    return unicodedata.category(sign)[0] in "LMN"


def _is_spelling(sign: str) -> bool:
    return any(first <= ord(sign) <= last for first, last in _MARKS_THAT_ARE_SPELLING)
