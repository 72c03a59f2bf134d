"""The few words in which the programme schema is written: each makes a piece of JSON Schema with its description."""

from typing import Any

Schema = dict[str, Any]
"""A JSON Schema: JSON's own shape, hence Any."""

SLUG = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$"
CODE = r"^[a-z][a-z0-9]*([_-][a-z0-9]+)*$"

OUT_OF_PLACE: Schema = {"not": {}}
"""Nothing is right here. The schema ``false`` says the same, but validators lose its place."""


def text(description: str, *, longest: int = 2000) -> Schema:
    return {"type": "string", "minLength": 1, "maxLength": longest, "description": description}


def ref(name: str, description: str | None = None) -> Schema:
    pointer: Schema = {"$ref": f"#/$defs/{name}"}
    return pointer if description is None else pointer | {"description": description}


def one_of(description: str, *values: str, default: str | None = None) -> Schema:
    schema: Schema = {"enum": list(values), "description": description}
    return schema if default is None else schema | {"default": default}


def whole(description: str, least: int, most: int, *, default: int | None = None) -> Schema:
    schema: Schema = {"type": "integer", "minimum": least, "maximum": most, "description": description}
    return schema if default is None else schema | {"default": default}


def array(description: str, items: Schema, *, least: int = 1, most: int = 100) -> Schema:
    return {
        "type": "array",
        "description": description,
        "items": items,
        "minItems": least,
        "maxItems": most,
    }


def record(
    description: str, properties: dict[str, Schema], required: tuple[str, ...] = (), **more: object
) -> Schema:
    schema: Schema = {
        "type": "object",
        "description": description,
        "properties": properties,
        "additionalProperties": False,
    }
    return schema | ({"required": list(required)} if required else {}) | more


def when(key: str, value: str, *, needs: tuple[str, ...] = (), bars: tuple[str, ...] = ()) -> Schema:
    """If ``key`` is ``value``, some other keys are needed and some are out of place."""
    return {
        "if": {"properties": {key: {"const": value}}, "required": [key]},
        "then": {"required": list(needs), "properties": dict.fromkeys(bars, OUT_OF_PLACE)},
    }
