"""What a close pack looks like: as HTML, CSV, PDF and JSON, each made from the same document."""

from api.close_pack.render import EMBEDDED_FONTS, MEDIA_TYPES, render

__all__ = ["EMBEDDED_FONTS", "MEDIA_TYPES", "render"]
