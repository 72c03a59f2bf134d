"""The reference of the programme format, as Markdown, made from the published schema.

``python -m products.programmes.reference > docs/reference/programme-format.md`` writes it anew; a test compares.
"""

import sys
from collections.abc import Iterator

from products.programmes.schema import SCHEMA
from products.programmes.schema_words import Schema

_HEAD = """# The programme format

Generated from the schema by `python -m products.programmes.reference`; change `products/programmes/schema.py` and
`definitions.py` instead. `mizan programme schema` prints the JSON Schema itself, `mizan programme validate FILE` checks
a file, and tells everything that is wrong with it at once, each with its JSON pointer and line.

A programme is one YAML file in UTF-8, up to 256 KiB. Of YAML it takes mappings, lists, text, whole numbers, `true`,
`false` and `null`: no anchors, aliases, tags or fractional numbers, and no key twice. `NO` is Norway, and a date is text.
Money and percentages are text in quotes, so that they stay exact.

Beyond the schema, a file is refused when an amount has more decimals than its currency; a time zone, currency, day or
month-day does not exist; a code, slug or priority stands twice; a fact or sponsor is used and not declared, or compared
with a value of another type; sponsors' shares don't add up to 100 %; a table has gaps, overlaps, or no row for an age at
which members may enrol; `match_base: due` stands without an instalment; the product that takes the remainder isn't the
last; or the percentages that products may ask for add up to more than the ceiling (over-allocation).
"""

_RULES = """
## How the parts act together

- **What a product asks for**: the rule's amount; raised to `at_least`; cut to `maximum`; less what the period had
  already; cut to what the ceiling leaves, in priority order; whole `step`s. Below `minimum`: nothing, or, with
  `below_minimum: accumulate`, all the same.
- **What it gets**: what was collected goes to the products in priority order. A shortfall cuts the last ones first;
  what nobody asked for, or is too little to be taken, is unapplied. The parts always add up to what was collected.
- **Percentages of one remittance** are rounded together: their sum to the nearest minor unit, halves up, then divided
  by largest remainder, ties to the lower priority number.
- **Entitlement** depends on the totals of a window alone: thresholds on all contributions, each tier that is met gives
  min(`cap`, `rate` × its contributions, rounded down), and all together at most the greatest cap among them.
- **Sponsors' shares** are apportioned on the cumulative entitlement, so that a growing match never takes back from one.
- **29 February**: anniversaries and birthdays fall on 1 March in years without it.
"""


def render() -> str:
    """The whole page."""
    return (
        "\n".join([_HEAD, *_section("A programme", SCHEMA, level=2), *_definitions(), _RULES.strip()]) + "\n"
    )


def _definitions() -> Iterator[str]:
    for name, schema in SCHEMA["$defs"].items():
        yield from _section(name, schema, level=2)


def _section(title: str, schema: Schema, *, level: int) -> Iterator[str]:
    yield f"{'#' * level} {title}\n"
    yield schema["description"] + "\n"
    if "properties" not in schema:
        if "pattern" in schema:
            yield f"Pattern: `{schema['pattern']}`\n"
        return
    yield "| key | what | meaning |\n|---|---|---|"
    nested: list[tuple[str, Schema]] = []
    required = schema.get("required", [])
    for key, value in schema["properties"].items():
        needed = " (required)" if key in required else ""
        yield f"| `{key}`{needed} | {_kind(key, value)} | {_meaning(value)} |"
        inner = value.get("items", value)
        if "properties" in inner:
            nested.append((key, inner))
    yield ""
    for rule in schema.get("allOf", []):
        yield _rule(rule)
    if schema.get("allOf"):
        yield ""
    for key, inner in nested:
        yield from _section(f"{title}: {key}", inner, level=level + 1)


def _kind(key: str, schema: Schema) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name})"
    if "enum" in schema:
        return " · ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema["type"] == "array":
        return f"list of {_kind(key, schema['items'])}"
    if schema["type"] == "integer":
        return f"whole number, {schema['minimum']} to {schema['maximum']}"
    if schema["type"] == "object":
        if "properties" in schema:
            return f"mapping, see *{key}* below"
        return f"mapping of names to {_kind(key, schema['additionalProperties'])}"
    if schema["type"] == "boolean":
        return "`true` · `false`"
    return "text"


def _meaning(schema: Schema) -> str:
    named = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else {}
    text = str(schema.get("description") or named.get("description", ""))
    default = f" Default: `{str(schema['default']).lower()}`." if "default" in schema else ""
    return (text + default).replace("|", "\\|").replace("\n", " ")


def _rule(rule: Schema) -> str:
    ((key, condition),) = rule["if"]["properties"].items()
    then = rule["then"]
    needs = ", ".join(f"`{name}`" for name in then["required"])
    bars = ", ".join(f"`{name}`" for name in then["properties"])
    told = [part for part in (f"needs {needs}" if needs else "", f"has no {bars}" if bars else "") if part]
    return f"- `{key}: {condition['const']}` {' and '.join(told)}."


if __name__ == "__main__":
    sys.stdout.write(render())
