"""The published JSON Schema (2020-12) of programme files: the one description of the format.

`mizan programme schema` prints `SCHEMA`; `docs/reference/programme-format.md` is generated from it. What a schema
can't say (currency exponents, over-allocation, declared facts …) is checked by `loader`.
"""

from products.programmes.definitions import DEFS
from products.programmes.schema_words import CODE, Schema, array, one_of, record, ref, text, when, whole

FORMAT = 1

SCHEMA: Schema = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Mizan programme",
    **record(
        "A scheme described as data: who may join, what is taken from a remittance, for what, and who adds what.",
        {
            "format": {"const": FORMAT, "description": "The version of this format."},
            "slug": ref("slug", "The programme's name in commands and addresses."),
            "name": text("The scheme's name.", longest=200),
            "description": text("What it is, in a few sentences."),
            "authority": text("Who is responsible for the scheme.", longest=200),
            "source": text("Where the rules were published."),
            "readings": array(
                "Where the source leaves a rule open: the reading chosen.",
                record(
                    "One reading.",
                    {"topic": text("The rule.", longest=200), "reading": text("How it is read here.")},
                    ("topic", "reading"),
                ),
                least=0,
            ),
            "version": whole("Greater than that of the version before.", 1, 1_000_000),
            "in_force_from": ref("date", "The first day of this version."),
            "applies_to": one_of(
                "Which windows this version governs: those that start in force, those still open then, or all that "
                "end on or after `since`.",
                "new_windows",
                "open_windows",
                "since",
            ),
            "since": ref("date"),
            "currency": {
                "type": "string",
                "pattern": "^[A-Z]{3}$",
                "description": "ISO 4217; every amount in the file is in it.",
            },
            "time_zone": text("IANA name, `Africa/Kigali`: its dates are the programme's.", longest=60),
            "corridors": array(
                "Which remittances belong to the programme.",
                record(
                    "Where from, where to; left out: anywhere.",
                    {
                        "from": array("Origin countries.", ref("country"), most=250),
                        "to": array("Destination countries.", ref("country"), most=250),
                    },
                ),
            ),
            "contributions": record(
                "Limits on all products together.",
                {
                    "taken": one_of("On top of the remittance, or out of it.", "on_top", "out_of_remittance"),
                    "ceiling": ref(
                        "percent", "The most that all products together may take, as a share of `received`."
                    ),
                    "cooling_off_days": whole(
                        "For so many days a member may withdraw its first mandate and get back what has been collected "
                        "under it and not yet paid in.",
                        0,
                        90,
                        default=0,
                    ),
                },
                ("taken", "ceiling"),
            ),
            "facts": {
                "type": "object",
                "description": "The facts that the rules use, by name.",
                "propertyNames": {"pattern": CODE, "maxLength": 60},
                "additionalProperties": ref("fact"),
                "maxProperties": 100,
            },
            "verification": array("Limits by level of verification.", ref("level"), least=0, most=4),
            "sponsors": array("Who pays for matches.", ref("sponsor"), least=0),
            "products": array("The products.", ref("product"), most=50),
        },
        (
            "format",
            "slug",
            "name",
            "description",
            "authority",
            "source",
            "version",
            "in_force_from",
            "applies_to",
            "currency",
            "time_zone",
            "corridors",
            "contributions",
            "products",
        ),
        allOf=[
            when("applies_to", "since", needs=("since",)),
            when("applies_to", "new_windows", bars=("since",)),
            when("applies_to", "open_windows", bars=("since",)),
        ],
    ),
    "$defs": DEFS,
}
