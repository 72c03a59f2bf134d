"""The page's languages: its texts from catalogues (`locale/*.po`), money and dates as each language writes them."""

import copy
import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, Final

from babel import Locale
from babel.core import negotiate_locale
from babel.dates import format_date, format_datetime
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import get_plus_sign_symbol
from babel.support import Translations

from ledger.money import exponent

FOLDER: Final = Path(__file__).with_name("locale")
DEFAULT: Final = "en"
_RIGHT_TO_LEFT: Final = "\u200f"
LANGUAGES: Final = ("en", "fr", "ar", "rw", "fil", "ne")
"""Those that there are texts for; English is in the templates themselves."""


@dataclass(frozen=True, slots=True)
class Language:
    """A language of the page."""

    code: str
    name: str
    direction: str
    locale: Locale
    texts: Translations

    def money(self, money: Mapping[str, Any], *, signed: bool = False) -> str:
        """Money as the API tells it: minor units, with the decimals of ISO 4217 whatever the language's own table says."""
        places = exponent(money["currency"])
        pattern = copy.copy(self.locale.currency_formats["standard"])
        pattern.frac_prec = (places, places)
        value = Decimal(money["amount"]).scaleb(-places)
        written: str = pattern.apply(value, self.locale, currency=money["currency"], currency_digits=False)
        if not signed or value <= 0:
            return written
        # behind the mark that makes an Arabic amount run from right to left, or the sign would be at its other end
        mark = _RIGHT_TO_LEFT if written.startswith(_RIGHT_TO_LEFT) else ""
        return f"{mark}{get_plus_sign_symbol(self.locale)}{written.removeprefix(mark)}"

    def day(self, told: str) -> str:
        """A day."""
        return str(format_date(date.fromisoformat(told), "long", locale=self.locale))

    def moment(self, told: str) -> str:
        """A moment, in UTC."""
        return str(format_datetime(datetime.fromisoformat(told), "medium", locale=self.locale))


@cache
def language(code: str) -> Language:
    """A language of `LANGUAGES`."""
    locale = Locale.parse(code)
    name = locale.get_language_name(code) or code
    return Language(code, name[:1].upper() + name[1:], locale.text_direction, locale, _texts(code))


def chosen(asked: str | None, accepted: str | None) -> Language:
    """The language that was asked for, or else the best that the browser accepts, or else English."""
    if asked in LANGUAGES:
        return language(asked)
    return language(negotiate_locale(_preferred(accepted or ""), LANGUAGES, sep="-") or DEFAULT)


def _preferred(accepted: str) -> list[str]:
    """The tags of an Accept-Language (RFC 9110, 12.5.4), best first; what is no weight counts as none."""
    ranked = []
    for part in accepted[:500].split(","):
        tag, _, weight = part.strip().partition(";q=")
        try:
            ranked.append((float(weight or 1), tag.partition("-")[0].lower()))
        except ValueError:
            continue
    return [{"tl": "fil"}.get(tag, tag) for _, tag in sorted(ranked, key=lambda one: -one[0])]


def _texts(code: str) -> Translations:
    if code == DEFAULT:
        return Translations()
    with FOLDER.joinpath(f"{code}.po").open("rb") as file:
        read = read_po(file, locale=code, abort_invalid=True)
    compiled = io.BytesIO()
    write_mo(compiled, read)
    compiled.seek(0)
    return Translations(compiled)
