"""The contribution rule of a product, read from its file: what is asked, of what, how often, within which bounds."""

from fractions import Fraction

from products.programmes.model import ChoiceRange, Contribution, Payable, Row
from products.programmes.reading import Node


def read_contribution(node: Node) -> Contribution:
    """The contribution rule; faults go to the node's context."""
    rule, per_period = node.get("rule"), node.get("basis") == "per_period"
    of, by = node.get("of"), node.get("by")
    if rule in {"fixed", "percent"}:
        _check_value_or_choice(node, "amount" if rule == "fixed" else "percent")
    rows = _read_rows(node) if rule == "table" else ()
    if of is not None and of != "received":
        _check_fact(node, "of", {"money"})
    if by is not None and by not in {"entry_age", "age"}:
        _check_fact(node, "by", {"integer", "money"})
    if rule == "table":
        percents = any(row.percent is not None for row in rows)
        if percents and of is None:
            node.fault("table", "a table of percentages needs “of”")
        if not percents and of is not None:
            node.fault("of", "a table of amounts takes nothing of anything")
    _check_bounds(node)
    period = node.window("period") if per_period else None
    payable = node.child("payable")
    if payable is not None and (period is None or period.kind != "month"):
        node.fault("payable", "only monthly instalments carry their month")
    return Contribution(
        rule=rule,
        amount=node.money("amount"),
        percent=_percent(node, "percent", of),
        choice=_read_choice(node, rule, of),
        of=of,
        by=by,
        rows=rows,
        period=period,
        payable=None
        if payable is None
        else Payable(tuple(payable.get("late_months", ())), payable.month_day("late_until")),
        at_least=node.money("at_least"),
        minimum=node.money("minimum"),
        maximum=node.money("maximum"),
        step=node.money("step"),
        below_minimum=node.get("below_minimum", "skip"),
    )


def most_of_received(contribution: Contribution) -> Fraction:
    """The greatest part of what is received that the rule may ask for; 0 where it doesn't depend on it."""
    if contribution.of != "received":
        return Fraction(0)
    parts = [row.percent for row in contribution.rows if row.percent is not None]
    if contribution.percent is not None:
        parts.append(contribution.percent)
    if contribution.choice is not None and isinstance(contribution.choice.maximum, Fraction):
        parts.append(contribution.choice.maximum)
    return max(parts, default=Fraction(0))


def _percent(node: Node, key: str, of: str | None) -> Fraction | None:
    return node.percent(key, most=1 if of == "received" else None)


def _check_value_or_choice(node: Node, key: str) -> None:
    if (key in node) == ("choice" in node):
        node.context.fault(node.pointer, f"a {node.get('rule')} rule has either “{key}” or “choice”")


def _check_fact(node: Node, key: str, types: set[str]) -> None:
    name = node.get(key)
    declared = node.context.facts.get(name)
    if declared is None:
        if name not in node.context.doubtful:
            node.fault(key, f"the programme declares no fact “{name}”")
    elif declared.type not in types:
        node.fault(key, f"“{name}” is of type {declared.type}, not {' or '.join(sorted(types))}")


def _check_bounds(node: Node) -> None:
    node.ordered("at_least", "maximum")
    node.ordered("minimum", "maximum")
    node.ordered("step", "maximum")
    if "step" in node and node.money("step") == 0:
        node.fault("step", "a step is more than nothing")
    if "below_minimum" in node and "minimum" not in node:
        node.fault("below_minimum", "there is no minimum")


def _read_choice(node: Node, rule: str, of: str | None) -> ChoiceRange | None:
    choice = node.child("choice")
    if choice is None:
        return None
    values: dict[str, Fraction | int | None] = {
        key: _percent(choice, key, of) if rule == "percent" else choice.money(key)
        for key in ("minimum", "maximum", "step", "suggested")
    }
    least, most, step, suggested = (values[key] for key in ("minimum", "maximum", "step", "suggested"))
    if rule == "percent" and most is None:
        choice.context.fault(choice.pointer, "a choice of percentages needs a maximum")
    if least is not None and most is not None and most < least:
        choice.fault("maximum", "less than the minimum")
    if step is not None and step <= 0:
        choice.fault("step", "a step is more than nothing")
    fits = suggested is None or least is None or (least <= suggested and (most is None or suggested <= most))
    if not fits:
        choice.fault("suggested", "outside what may be chosen")
    elif suggested is not None and step and suggested % step:
        choice.fault("suggested", "not a whole number of steps")
    return ChoiceRange(least if least is not None else 0, most, step, suggested)


def _read_rows(node: Node) -> tuple[Row, ...]:
    by = node.get("by")
    declared = node.context.facts.get(by) if isinstance(by, str) else None
    type_ = str(declared.type) if declared is not None else "integer"
    if by in node.context.doubtful or type_ not in {"integer", "money"}:
        return ()
    rows: list[Row] = []
    for line in node.children("table"):
        since = _bound(line, "from", type_)
        upto = _bound(line, "to", type_)
        if upto is not None and since is not None and upto < since:
            line.fault("to", "less than from")
        if rows and (rows[-1].upto is None or since != rows[-1].upto + 1):
            line.fault("from", "does not follow on the row before: a table ascends without gaps")
        rows.append(Row(since or 0, upto, line.money("amount"), _percent(line, "percent", node.get("of"))))
    if len({row.percent is None for row in rows}) > 1:
        node.fault("table", "either amounts or percentages, not both")
    return tuple(rows)


def _bound(line: Node, key: str, type_: str) -> int | None:
    value = line.scalar(key, type_)
    return value if isinstance(value, int) else None
