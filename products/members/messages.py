"""What members are sent, in the language of their mandate: one-time codes and notices, as short as a text message.

A code's message says what the code is for, so that nobody can have it read out for something else. Nothing that a partner
wrote is in a message: only the last characters of a number, and what Mizan knows itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from products.members.models import Member

DEFAULT_LANGUAGE: Final = "en"


@dataclass(frozen=True, slots=True, repr=False)
class CodeMessage:
    """A message to send after the commit. Holds a code or a phone number: never logged, so it has no repr."""

    to: str
    text: str
    language: str


@dataclass(frozen=True, slots=True)
class Wording:
    """One language: how a code and a notice read, and the names of what they are about."""

    code: str
    purposes: Mapping[str, str]
    notice: str
    stop: str
    notices: Mapping[str, str]


CATALOGUE: Final[Mapping[str, Wording]] = {
    "en": Wording(
        "{code} is your Mizan code. Purpose: {purpose}. Valid for 10 minutes. Nobody of ours asks for it: if you did not"
        " start this, keep it to yourself.",
        {
            "device": "add a device",
            "phone": "change your number to one ending in {tail}",
            "new_phone": "confirm this number",
            "payee": "allow payouts to an account ending in {tail}",
            "link": "link your accounts with two partners",
            "consent": "let more of your account be seen",
            "erasure": "erase your personal data for good",
            "export": "get a copy of your data",
            "cancel": "stop a change to your account",
            "payout": "pay out money ({tail})",
        },
        "Mizan: {event}.",
        " It takes effect on {date}. If this was not you, stop it: {link}",
        {
            "phone": "a new phone number was asked for on your account",
            "device": "a new device was added to your account",
            "payee": "a new payee was added to your account",
            "device_revoked": "a device was removed from your account",
            "payee_removed": "a payee was removed from your account",
            "change_cancelled": "a change to your account was stopped",
            "linked": "your accounts with two partners were linked",
        },
    ),
    "fr": Wording(
        "{code} est votre code Mizan. But : {purpose}. Valable 10 minutes. Personne chez nous ne le demande : si vous"
        " n'êtes pas à l'origine de cette demande, gardez-le pour vous.",
        {
            "device": "ajouter un appareil",
            "phone": "remplacer votre numéro par celui finissant par {tail}",
            "new_phone": "confirmer ce numéro",
            "payee": "autoriser des paiements vers un compte finissant par {tail}",
            "link": "relier vos comptes chez deux partenaires",
            "consent": "laisser voir davantage de votre compte",
            "erasure": "effacer définitivement vos données personnelles",
            "export": "obtenir une copie de vos données",
            "cancel": "arrêter une modification de votre compte",
            "payout": "payer de l'argent ({tail})",
        },
        "Mizan : {event}.",
        " Effectif le {date}. Si ce n'est pas vous, arrêtez-le : {link}",
        {
            "phone": "un nouveau numéro a été demandé pour votre compte",
            "device": "un nouvel appareil a été ajouté à votre compte",
            "payee": "un nouveau bénéficiaire a été ajouté à votre compte",
            "device_revoked": "un appareil a été retiré de votre compte",
            "payee_removed": "un bénéficiaire a été retiré de votre compte",
            "change_cancelled": "une modification de votre compte a été arrêtée",
            "linked": "vos comptes chez deux partenaires ont été reliés",
        },
    ),
    "ar": Wording(
        "{code} هو رمزك في ميزان. الغرض: {purpose}. صالح لمدة 10 دقائق. لا يطلبه منك أحد من طرفنا: إن لم تبدأ هذا الطلب فلا"
        " تعطه لأحد.",
        {
            "device": "إضافة جهاز",
            "phone": "تغيير رقمك إلى رقم ينتهي بـ {tail}",
            "new_phone": "تأكيد هذا الرقم",
            "payee": "السماح بالدفع إلى حساب ينتهي بـ {tail}",
            "link": "ربط حساباتك لدى شريكين",
            "consent": "السماح برؤية المزيد من حسابك",
            "erasure": "محو بياناتك الشخصية نهائيا",
            "export": "الحصول على نسخة من بياناتك",
            "cancel": "إيقاف تغيير في حسابك",
            "payout": "صرف أموال ({tail})",
        },
        "ميزان: {event}.",
        " يسري في {date}. إن لم تكن أنت، أوقفه: {link}",
        {
            "phone": "طُلب رقم هاتف جديد لحسابك",
            "device": "أضيف جهاز جديد إلى حسابك",
            "payee": "أضيف مستفيد جديد إلى حسابك",
            "device_revoked": "أزيل جهاز من حسابك",
            "payee_removed": "أزيل مستفيد من حسابك",
            "change_cancelled": "أوقف تغيير في حسابك",
            "linked": "رُبطت حساباتك لدى شريكين",
        },
    ),
    "rw": Wording(
        "{code} ni kode yawe ya Mizan. Impamvu: {purpose}. Imara iminota 10. Nta muntu wacu uyikubaza: niba atari wowe"
        " wabisabye, ntuyihe undi muntu.",
        {
            "device": "kongeraho igikoresho",
            "phone": "guhindura nimero ikaba irangira na {tail}",
            "new_phone": "kwemeza iyi nimero",
            "payee": "kwemera kwishyura kuri konti irangira na {tail}",
            "link": "guhuza konti zawe ku bafatanyabikorwa babiri",
            "consent": "kwemera ko konti yawe ibonwa kurushaho",
            "erasure": "gusiba burundu amakuru yawe bwite",
            "export": "kubona kopi y'amakuru yawe",
            "cancel": "guhagarika impinduka kuri konti yawe",
            "payout": "kwishyura amafaranga ({tail})",
        },
        "Mizan: {event}.",
        " Bizatangira ku wa {date}. Niba atari wowe, bihagarike: {link}",
        {
            "phone": "hasabwe nimero nshya ya telefoni kuri konti yawe",
            "device": "igikoresho gishya cyongewe kuri konti yawe",
            "payee": "uwishyurwa mushya yongewe kuri konti yawe",
            "device_revoked": "igikoresho cyakuwe kuri konti yawe",
            "payee_removed": "uwishyurwa yakuwe kuri konti yawe",
            "change_cancelled": "impinduka kuri konti yawe yahagaritswe",
            "linked": "konti zawe ku bafatanyabikorwa babiri zahujwe",
        },
    ),
    "tl": Wording(
        "{code} ang iyong Mizan code. Para sa: {purpose}. May bisa nang 10 minuto. Walang taga-amin ang hihingi nito: kung"
        " hindi ikaw ang nagsimula nito, huwag ibigay kaninuman.",
        {
            "device": "magdagdag ng device",
            "phone": "palitan ang iyong numero ng nagtatapos sa {tail}",
            "new_phone": "kumpirmahin ang numerong ito",
            "payee": "payagan ang pagbabayad sa account na nagtatapos sa {tail}",
            "link": "pag-ugnayin ang mga account mo sa dalawang partner",
            "consent": "ipakita ang higit pa sa iyong account",
            "erasure": "burahin nang tuluyan ang iyong personal na datos",
            "export": "kumuha ng kopya ng iyong datos",
            "cancel": "itigil ang isang pagbabago sa iyong account",
            "payout": "magbayad ng pera ({tail})",
        },
        "Mizan: {event}.",
        " Magkakabisa sa {date}. Kung hindi ikaw ito, itigil: {link}",
        {
            "phone": "may humiling ng bagong numero ng telepono sa iyong account",
            "device": "may bagong device na idinagdag sa iyong account",
            "payee": "may bagong tatanggap ng bayad na idinagdag sa iyong account",
            "device_revoked": "may device na inalis sa iyong account",
            "payee_removed": "may tatanggap ng bayad na inalis sa iyong account",
            "change_cancelled": "itinigil ang isang pagbabago sa iyong account",
            "linked": "pinag-ugnay ang mga account mo sa dalawang partner",
        },
    ),
}
"""By language (ISO 639-1). Every language has every purpose and every notice; a test keeps it so."""


def language_of(member: Member) -> str:
    """The language of the member's latest mandate, or English where there is none or it isn't spoken here."""
    for mandate in reversed(member.mandates):
        spoken = mandate.language.partition("-")[0].lower()
        if spoken in CATALOGUE:
            return spoken
    return DEFAULT_LANGUAGE


def code_text(language: str, code: str, purpose: str, tail: str) -> str:
    """The message that carries a code for a purpose; `tail` is the end of the number it is about, if any."""
    wording = CATALOGUE[language]
    return wording.code.format(code=code, purpose=wording.purposes[purpose].format(tail=tail))


def notice_text(language: str, kind: str, effective_at: datetime | None = None, link: str = "") -> str:
    """What the old contact is told: what happened and, while it can be stopped, until when and by which link."""
    wording = CATALOGUE[language]
    told = wording.notice.format(event=wording.notices[kind])
    if effective_at is None:
        return told
    return told + wording.stop.format(date=f"{effective_at:%Y-%m-%d %H:%M} UTC", link=link)
