"""The formats that partners can be created with, by the name that ``--format`` takes."""

from collections.abc import Mapping
from typing import Final

from integrations.partners.port import PartnerFormat
from integrations.partners.standard import StandardFormat

FORMATS: Final[Mapping[str, PartnerFormat]] = {"standard": StandardFormat()}
