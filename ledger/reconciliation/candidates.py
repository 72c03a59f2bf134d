"""The statements that find candidates: for each kind of rule, which lines and items belong together if nothing else fits as well.

Every one reads from the relations `open_line` and `open_item` of a run (`ledger.reconciliation.engine`) and compares with `=`, so
that PostgreSQL hashes: the time is that of reading what is open, however much of it fits. Parameters: `days`, and the names of
`ledger.reconciliation.rules.Rule`.
"""

from typing import Final

from ledger.reconciliation.rules import Rule, Tolerance

_TOKENS = "array_remove(ARRAY[{row}.reference, {row}.end_to_end{more}], NULL) || {row}.identifiers"
# banks lose separators and case: what is left is compared


def _plain(token: str) -> str:
    # by bytes: names are letters and digits, and a locale's rules cost five times as much
    return f"translate(upper({token} COLLATE \"C\"), ' -_/.', '')"


def tokens(row: str, *, item: bool) -> str:
    """What a line or an item may be known by, as an array."""
    return _TOKENS.format(row=row, more=f", {row}.batch" if item else "")


def _exploded(relation: str, single: tuple[str, ...]) -> str:
    """Everything that the rows of a relation may be known by, one row each; nothing is computed for what bears no name."""

    # most rows bear one name: it is spelled once, as there is no other to compare it with
    def none_of(names: tuple[str, ...], column: str) -> str:
        return "".join(f" AND ({name} IS NULL OR {_plain(column)} <> {_plain(name)})" for name in names)

    parts = [
        f"SELECT id, {_plain(column)} AS token FROM {relation} WHERE {column} IS NOT NULL{none_of(single[:at], column)}"
        for at, column in enumerate(single)
    ]
    parts.append(
        f"SELECT id, {_plain('t')} FROM (SELECT id, {', '.join(single)}, unnest(identifiers) AS t FROM {relation}"
        f" WHERE identifiers <> '{{}}') AS known WHERE true{none_of(single, 't')}"
    )
    return " UNION ALL ".join(parts)


NAMES_MAX: Final = 10_000
"""What joins more pairs of lines and items than this is nobody's name."""

ROOM: Final = 16
"""Of a reference so many characters have room in an entry of MT940 (field 61), and some banks keep no more anywhere."""

# Nothing is computed of the items where no line bears a name of just that length; nor are the names of an item taken apart of which
# none is longer.
_CUT: Final = f"""
    SELECT DISTINCT i.id, {_plain(f"left(t, {ROOM})")} FROM open_item i CROSS JOIN LATERAL unnest({tokens("i", item=True)}) AS t
    WHERE (greatest(length(i.reference), length(i.end_to_end), length(i.batch)) > {ROOM} OR i.identifiers <> '{{}}')
      AND length(t) > {ROOM} AND {_plain(f"left(t, {ROOM})")} IN (
        SELECT {_plain("reference")} FROM open_line WHERE length(reference) = {ROOM}
        UNION SELECT {_plain("end_to_end")} FROM open_line WHERE length(end_to_end) = {ROOM})
"""

SHARED: Final = f"""
    WITH line_token AS MATERIALIZED ({_exploded("open_line", ("reference", "end_to_end"))}),
    item_token AS MATERIALIZED ({_exploded("open_item", ("reference", "end_to_end", "batch"))} UNION ALL {_CUT}),
    lines AS (SELECT token, count(*) AS lines FROM line_token GROUP BY token),
    items AS (SELECT token, count(*) AS items FROM item_token GROUP BY token),
    names AS MATERIALIZED (
        SELECT token, lines, items FROM lines JOIN items USING (token) WHERE lines * items <= {NAMES_MAX} AND token <> ''
    )
    SELECT lt.id AS line, it.id AS item, min(names.token) AS token, bool_or(names.lines = 1) AS of_one_line,
           bool_or(names.items = 1) AS of_one_item, bool_or(names.lines = 1 AND names.items = 1) AS of_both
    FROM names JOIN line_token lt USING (token) JOIN item_token it USING (token) GROUP BY 1, 2
"""
"""Lines and items that bear a name in common, or of whose name the bank kept what it has room for."""

_NEAR = "i.on_date BETWEEN l.booked_on - %(days)s AND l.booked_on + %(days)s"
# what came and went again is not part of what came
_ONE_WAY = "(l.amount > 0) = (i.amount > 0)"
_ONE_PARTY = "(l.party IS NULL OR i.party IS NULL OR l.party = i.party)"
# Two parties may number their payments alike: a name that was given to us tells one party's payment, and our own tell any.
_ONE_PARTY_OR_OUR_NAME = f"({_ONE_PARTY} OR NOT starts_with(coalesce({_plain('i.reference')}, ''), s.token))"
# What its originator named as another payment is never taken for this one. That the bank has a reference of its own says nothing.
_NO_OTHER_ID = "(l.end_to_end IS NULL OR i.end_to_end IS NULL OR l.end_to_end = i.end_to_end)"


def _amounts(tolerance: Tolerance | None) -> str:
    """Equal amounts; or less money than expected, by no more than the bank may have kept."""
    if tolerance is None:
        return "l.amount = i.amount"
    return (
        "sign(l.amount) = sign(i.amount) AND i.amount - l.amount BETWEEN 1 AND %(amount_max)s"
        " AND (i.amount - l.amount) * 10000 <= abs(i.amount) * %(basis_points)s"
    )


def one_to_one(rule: Rule) -> str:
    """Candidates (line, item, amount, difference, source, evidence of the match) of one line and one item."""
    evidence: dict[str, str] = {"days": "i.on_date - l.booked_on"}
    lines, items = "open_line", "open_item"
    conditions = [_amounts(rule.tolerance), _NEAR]
    for field in ("reference", "end_to_end"):
        if field in rule.on:
            conditions.append(f"l.{field} = i.{field}")
            evidence[field] = f"l.{field}"
    if "end_to_end" not in rule.on and "identifiers" not in rule.on:
        conditions.append(_NO_OTHER_ID)
    if "reference" in rule.on:
        conditions.append(_ONE_PARTY)
    if "identifiers" in rule.on:
        conditions.append(_ONE_PARTY_OR_OUR_NAME)
    if not rule.is_telling:
        party = "party" in rule.on
        conditions.append("l.party = i.party" if party else _ONE_PARTY)
        lines = _uncrowded("open_line", "open_item", "booked_on", by_party=party)
        items = _uncrowded("open_item", "open_line", "on_date", by_party=party)
        if party:
            evidence["party"] = "l.party"
    joined = f"{lines} AS l JOIN {items} AS i ON {' AND '.join(conditions)}"
    if "identifiers" in rule.on:
        evidence["identifier"] = "s.token"
        joined = f"shared s JOIN open_line l ON l.id = s.line JOIN open_item i ON i.id = s.item AND {' AND '.join(conditions)}"
    told = ", ".join(f"'{name}', {value}" for name, value in evidence.items())
    columns = (
        "l.id AS line, i.id AS item, l.amount, l.amount - i.amount AS difference, i.source,"
        f" jsonb_build_object({told}) AS evidence"
    )
    if "identifiers" not in rule.on:
        return f"SELECT {columns} FROM {joined}"
    # a name that one line and one item alone bear says more than one that others bear too
    return f"""
    SELECT line, item, amount, difference, source, evidence FROM (
        SELECT {columns}, s.of_both, bool_or(s.of_both) OVER (PARTITION BY l.id) AS line_has,
               bool_or(s.of_both) OVER (PARTITION BY i.id) AS item_has
        FROM {joined}
    ) AS c WHERE of_both OR NOT (line_has OR item_has)
    """


def _uncrowded(relation: str, other: str, day: str, *, by_party: bool) -> str:
    """What has its amount alone within a span of `alone_days`: the others would be ambiguous, and would join by the million."""
    key = "party, amount" if by_party else "amount"
    return f"""(
        SELECT * FROM (
            SELECT *, count(*) OVER (PARTITION BY {key}, ({day} - DATE '2000-01-01') / (%(alone_days)s + 1)) AS crowd
            FROM {relation} WHERE ({key}) IN (SELECT {key} FROM {other})
        ) AS one WHERE crowd = 1
    )"""


def not_alone(rule: Rule, found: str) -> str:
    """Lines and items of candidates by amount and day for which something else that is open would do as well.

    Another line or item with the amount within `alone_days`; the sum of what a party paid on a day, which says more, or of all else
    that it did; or some of what the party of one side has open, where nobody says whose the other side is.
    """
    parties = f"""party IN (
        SELECT p.party FROM {found} f JOIN open_line p ON p.id = f.line WHERE p.party IS NOT NULL
        UNION SELECT p.party FROM {found} f JOIN open_item p ON p.id = f.item WHERE p.party IS NOT NULL)"""
    party = " AND o.party = c.party" if "party" in rule.on else ""
    return f"""
    WITH c AS MATERIALIZED (
        SELECT f.line, f.item, f.amount, l.booked_on, i.on_date, l.party, i.party AS item_party
        FROM {found} f JOIN open_line l ON l.id = f.line JOIN open_item i ON i.id = f.item
    )
    SELECT c.line FROM c JOIN open_line o ON o.amount = c.amount AND o.id <> c.line{party}
        AND abs(o.booked_on - c.booked_on) <= %(alone_days)s
    UNION SELECT c.line FROM c JOIN open_item o ON o.amount = c.amount AND o.id <> c.item{party}
        AND abs(o.on_date - c.on_date) <= %(alone_days)s
    UNION SELECT unnest(g.lines || g.items) FROM ({_items_of_a_day(by_batch=False, among=parties)}) AS g
    UNION SELECT unnest(g.lines || g.items) FROM ({_lines_of_a_day(among=parties)}) AS g
    UNION SELECT c.line FROM c JOIN open_item o ON o.party = c.party AND {_PART}
        AND abs(o.on_date - c.booked_on) <= %(alone_days)s
        GROUP BY c.line, c.amount, c.item_party, GROUPING SETS ((), (coalesce(o.day, o.on_date))) HAVING {_MAY_ADD_UP.format(other="c.item_party")}
    UNION SELECT c.line FROM c JOIN open_line o ON o.party = c.item_party AND {_PART}
        AND abs(o.booked_on - c.on_date) <= %(alone_days)s
        GROUP BY c.line, c.amount, c.party, GROUPING SETS ((), (o.booked_on)) HAVING {_MAY_ADD_UP.format(other="c.party")}
    """


_PART: Final = "sign(o.amount) = sign(c.amount) AND abs(o.amount) < abs(c.amount)"
_MAY_ADD_UP: Final = (
    "count(*) > 1 AND (sum(o.amount) = c.amount OR {other} IS NULL AND abs(sum(o.amount)) >= abs(c.amount))"
)


# Elsewhere the other side of a transfer bears its name, and goes the other way.
_HERE: Final = "o.bank_account_id = %(account)s AS here"


def named_elsewhere(candidates: str) -> str:
    """Keys of those candidates (key, lines, items) whose lines bear another item's name, paired or not, or whose items another line's.

    A payment that was made twice, or whose amount is wrong, must not be taken for a stranger of the same amount; nor one that
    came to another bank account than the books have it on.
    """
    return f"""
    WITH c AS MATERIALIZED ({candidates}),
    line_name AS MATERIALIZED (
        SELECT c.key, c.items, l.amount > 0 AS came, {_plain("t")} AS token FROM c CROSS JOIN LATERAL unnest(c.lines) AS m (id)
        JOIN open_line l ON l.id = m.id CROSS JOIN LATERAL unnest({tokens("l", item=False)}) AS t
    ), item_name AS MATERIALIZED (
        SELECT c.key, c.lines, i.amount > 0 AS came, {_plain("t")} AS token FROM c CROSS JOIN LATERAL unnest(c.items) AS m (id)
        JOIN open_item i ON i.id = m.id CROSS JOIN LATERAL unnest({tokens("i", item=True)}) AS t
    )
    SELECT n.key FROM line_name n JOIN (
        SELECT o.id, {_HERE}, o.amount > 0 AS came, {_plain("t")} AS token
        FROM ledger.item o CROSS JOIN LATERAL unnest({tokens("o", item=True)}) AS t
        WHERE o.on_date >= %(since)s AND EXISTS (SELECT FROM line_name)
    ) AS other ON other.token = n.token AND other.id <> ALL (n.items) AND (other.here OR other.came = n.came)
    UNION SELECT n.key FROM item_name n JOIN (
        SELECT o.id, {_HERE}, o.amount > 0 AS came, {_plain("t")} AS token
        FROM ledger.statement_line o CROSS JOIN LATERAL unnest({tokens("o", item=False)}) AS t
        WHERE o.booked_on >= %(since)s AND o.duplicate_of IS NULL AND EXISTS (SELECT FROM item_name)
    ) AS other ON other.token = n.token AND other.id <> ALL (n.lines) AND (other.here OR other.came = n.came)
    """


# Groups: (lines, items, amount, source, evidence, and of a party's whether any of them bears a name); the same line or item may
# still be in two of them.


def groups(rule: Rule) -> str:
    """Candidates of one line and many items, or of many lines and one item, whose sums are equal."""
    if "identifiers" in rule.on:
        return _SHARED_BY_ITEMS if rule.pairs == "one_line_to_many" else _SHARED_BY_LINES
    if rule.pairs == "many_lines_to_one":
        return _lines_of_a_day()
    return _items_of_a_day(by_batch="batch" in rule.on)


# An identifier that joins many lines with many items says nothing: only one that has one of a side is looked at.
_SHARED_BY_ITEMS: Final = f"""
    SELECT ARRAY[l.id] AS lines, array_agg(i.id ORDER BY i.id) AS items, l.amount, min(i.source COLLATE "C") AS source,
           jsonb_build_object('identifier', min(s.token), 'items', count(*), 'sum', l.amount,
                              'days', max(abs(i.on_date - l.booked_on))) AS evidence
    FROM shared s JOIN open_line l ON l.id = s.line JOIN open_item i ON i.id = s.item
    WHERE s.of_one_line
    GROUP BY l.id, l.amount
    HAVING count(*) > 1 AND sum(i.amount) = l.amount AND min(i.source COLLATE "C") = max(i.source COLLATE "C") AND bool_and({_NEAR} AND {_ONE_WAY} AND {_ONE_PARTY_OR_OUR_NAME})
"""
_SHARED_BY_LINES: Final = f"""
    SELECT array_agg(l.id ORDER BY l.id) AS lines, ARRAY[i.id] AS items, i.amount, i.source,
           jsonb_build_object('identifier', min(s.token), 'lines', count(*), 'sum', i.amount,
                              'days', max(abs(i.on_date - l.booked_on))) AS evidence
    FROM shared s JOIN open_line l ON l.id = s.line JOIN open_item i ON i.id = s.item
    WHERE s.of_one_item
    GROUP BY i.id, i.amount, i.source
    HAVING count(*) > 1 AND sum(l.amount) = i.amount AND bool_and({_NEAR} AND {_ONE_WAY} AND {_ONE_PARTY_OR_OUR_NAME})
"""


_NAMED: Final = "(reference IS NOT NULL OR end_to_end IS NOT NULL OR identifiers <> '{}')"


def as_good_alone(rule: Rule, found: str) -> str:
    """Groups of one party for which one line or item alone would do as well: the `n` of each."""
    of_group = "l.id = g.lines[1]" if rule.pairs == "one_line_to_many" else "i.id = g.items[1]"
    return f"""
    SELECT g.n FROM open_line l JOIN open_item i ON i.party = l.party AND i.amount = l.amount AND {_NEAR}
        JOIN {found} g ON {of_group}
    """


REVERSED: Final = """
    FROM {found} f CROSS JOIN LATERAL unnest({lines}) AS m (id) JOIN open_line l ON l.id = m.id
    WHERE l.reversal AND f.source <> 'booked'
"""
"""Candidates by which a bank's reversal would be a payment that is expected: it takes back what it booked, and pays nothing."""


def _items_of_a_day(*, by_batch: bool, among: str = "party IS NOT NULL") -> str:
    batch = ", batch" if by_batch else ""
    told = ", 'batch', f.batch" if by_batch else ""
    return f"""
    WITH due AS MATERIALIZED (
        SELECT id, party, coalesce(day, on_date) AS day, source, amount, {_NAMED} OR batch IS NOT NULL AS named{batch}
        FROM open_item WHERE {among}
    ), sums AS (
        SELECT party, day, source, sum(amount) AS amount, count(*) AS items{batch} FROM due
        GROUP BY party, day, source, amount > 0{batch} HAVING count(*) > 1
    ), fits AS (
        SELECT l.id AS line, l.amount, l.booked_on, {_NAMED} AS named, s.party, s.day, s.source,
               s.items{batch.replace(", ", ", s.")}
        FROM sums s JOIN open_line l ON l.party = s.party AND l.amount = s.amount
            AND l.booked_on BETWEEN s.day - %(days)s AND s.day + %(days)s
    )
    SELECT ARRAY[f.line] AS lines, array_agg(due.id ORDER BY due.id) AS items, f.amount, f.source,
           jsonb_build_object('party', f.party, 'day', f.day, 'items', f.items, 'sum', f.amount,
                              'days', f.day - f.booked_on{told}) AS evidence,
           bool_or(f.named OR due.named) AS named
    FROM fits f JOIN due ON due.party = f.party AND due.day = f.day AND due.source = f.source
        AND (due.amount > 0) = (f.amount > 0)
        {"AND due.batch IS NOT DISTINCT FROM f.batch" if by_batch else ""}
    GROUP BY f.line, f.amount, f.booked_on, f.party, f.day, f.source, f.items{batch.replace(", ", ", f.")}
    """


def _lines_of_a_day(*, among: str = "party IS NOT NULL") -> str:
    return f"""
    WITH sums AS (
        SELECT party, booked_on, sum(amount) AS amount, count(*) AS lines FROM open_line WHERE {among}
        GROUP BY party, booked_on, amount > 0 HAVING count(*) > 1
    ), fits AS (
        SELECT i.id AS item, i.amount, i.source, s.party, s.booked_on, s.lines, coalesce(i.day, i.on_date) AS day,
               {_NAMED} OR batch IS NOT NULL AS named
        FROM sums s JOIN open_item i ON i.party = s.party AND i.amount = s.amount
            AND s.booked_on BETWEEN coalesce(i.day, i.on_date) - %(days)s AND coalesce(i.day, i.on_date) + %(days)s
    )
    SELECT array_agg(l.id ORDER BY l.id) AS lines, ARRAY[f.item] AS items, f.amount, f.source,
           jsonb_build_object('party', f.party, 'day', f.day, 'lines', f.lines, 'sum', f.amount,
                              'days', f.day - f.booked_on) AS evidence,
           bool_or(f.named OR {_NAMED}) AS named
    FROM fits f JOIN open_line l ON l.party = f.party AND l.booked_on = f.booked_on AND (l.amount > 0) = (f.amount > 0)
    GROUP BY f.item, f.amount, f.source, f.party, f.booked_on, f.lines, f.day
    """


# Of one party, sign and time, and few: (one, amount, party, source, others, amounts, their days, whether an older one is out of
# reach). A party with one candidate is another rule's; with more than `candidates_max`, too many sets would add up by chance.
_FEW_PARTIES: Final = """
    WITH few_parties AS (
        SELECT party FROM (SELECT party FROM open_line WHERE party IS NOT NULL GROUP BY party HAVING count(*) <= %(open_max)s) AS l
        JOIN (SELECT party FROM open_item GROUP BY party HAVING count(*) <= %(open_max)s) AS i USING (party)
    )
"""
SEARCH_ITEMS: Final = f"""{_FEW_PARTIES}, oldest AS (
        SELECT party, source, sign(amount) AS way, min(on_date) AS on_date FROM open_item JOIN few_parties USING (party) GROUP BY 1, 2, 3
    )
    SELECT l.id, l.amount, l.party, i.source, array_agg(i.id ORDER BY i.id), array_agg(i.amount ORDER BY i.id),
           array_agg(coalesce(i.day, i.on_date) ORDER BY i.id), min(oldest.on_date) < l.booked_on - %(days)s
    FROM open_line l JOIN few_parties USING (party) JOIN open_item i ON i.party = l.party AND sign(i.amount) = sign(l.amount)
        AND {_NEAR}
    JOIN oldest ON oldest.party = i.party AND oldest.source = i.source AND oldest.way = sign(i.amount)
    GROUP BY l.id, l.amount, l.party, l.booked_on, i.source
    HAVING count(*) <= %(candidates_max)s AND count(*) FILTER (WHERE abs(i.amount) < abs(l.amount)) > 1
        AND abs(sum(i.amount)) >= abs(l.amount)
    ORDER BY l.id, i.source LIMIT %(sums_max)s
"""
SEARCH_LINES: Final = f"""{_FEW_PARTIES}, oldest AS (
        SELECT party, sign(amount) AS way, min(booked_on) AS booked_on FROM open_line JOIN few_parties USING (party) GROUP BY 1, 2
    )
    SELECT i.id, i.amount, i.party, i.source, array_agg(l.id ORDER BY l.id), array_agg(l.amount ORDER BY l.id),
           array_agg(l.booked_on ORDER BY l.id), min(oldest.booked_on) < i.on_date - %(days)s
    FROM open_item i JOIN few_parties USING (party) JOIN open_line l ON l.party = i.party AND sign(i.amount) = sign(l.amount)
        AND {_NEAR}
    JOIN oldest ON oldest.party = l.party AND oldest.way = sign(l.amount)
    GROUP BY i.id, i.amount, i.party, i.source, i.on_date
    HAVING count(*) <= %(candidates_max)s AND count(*) FILTER (WHERE abs(l.amount) < abs(i.amount)) > 1
        AND abs(sum(l.amount)) >= abs(i.amount)
    ORDER BY i.id LIMIT %(sums_max)s
"""
