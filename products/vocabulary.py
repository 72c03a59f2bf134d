"""What Mizan never holds: nothing that could expose a person to reprisal has a field, a fact or a document type.

A programme that needed such a thing could not be described, and that is the point: what is not held can't be shared,
stolen or demanded.
"""

import re
from collections.abc import Mapping
from typing import Final

_NEVER: Final[Mapping[str, tuple[str, ...]]] = {
    "immigration status": (
        "immigration",
        "immigrant",
        "visa",
        "asylum",
        "refugee",
        "undocumented",
        "deportation",
        "overstay",
        "residence_permit",
        "residency_permit",
        "work_permit",
        "stay_permit",
        "residence_status",
        "residency_status",
        "legal_status",
        "migration_status",
        "permit_status",
        "green_card",
    ),
    "religion": ("religion", "religious", "faith", "creed", "denomination", "church", "mosque", "sect"),
    "ethnicity": ("ethnic", "ethnicity", "race", "racial", "tribe", "tribal", "caste", "clan", "skin_colour"),
}

_WORD: Final = re.compile(r"[a-z]+")


def what_is_never_held(name: str) -> str | None:
    """What a field, fact or document type of this name would hold that Mizan never does; None for all others.

    Names are judged by their words, written in any of the usual ways: ``visaType``, ``visa_type``, ``visa-type``.
    """
    words = _WORD.findall(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
    joined = f"_{'_'.join(words)}_"
    for what, terms in _NEVER.items():
        if any(f"_{term}_" in joined for term in terms):
            return what
    return None
