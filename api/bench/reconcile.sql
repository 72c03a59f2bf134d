-- Statement lines and items whose truth is known, loaded in bulk: half of the lines are one item's with a reference of their own, a
-- sixth are two items' each, a sixth are three to an item, the rest are nobody's. Of the groups half share an identifier and half
-- only a party and a day, and every five-hundredth of the latter has a stranger among its items. Ids are in no order that
-- helps. The truth, by which the floor joins, stands where no rule looks: in a line's kind and an item's subject.
CREATE SCHEMA bench;
CREATE FUNCTION bench.id(kind integer, number bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT CAST(lpad(to_hex(kind), 8, '0') || '-0000-7000-8000-' || lpad(to_hex(number), 12, '0') AS uuid) $$;
-- 1 to 2^31 - 2 in an order that looks like chance, none twice
CREATE FUNCTION bench.shuffled(number bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT number * 48271 % 2147483647 $$;
CREATE PROCEDURE bench.load(size bigint, bank_account uuid, code char(3), today date) LANGUAGE plpgsql AS $$
DECLARE
    sixth bigint := size / 6;
    half bigint := size / 2;
    parties bigint := greatest(10, size / 1000);
    booked bigint;
BEGIN
    INSERT INTO ledger.statement_file (id, digest, name, format, bytes, received_at, received_by, wrapped_key)
        VALUES (bench.id(1, 0), sha256('bench'), 'bench', 'camt.053', 1, now(), 'bench', 'k');
    INSERT INTO ledger.bank_statement (id, file_id, position, bank_account_id, from_on, to_on, opening, closing, lines, imported_at)
        VALUES (bench.id(2, 0), bench.id(1, 0), 1, bank_account, today - 330, today, 0, 0, size, now());
    CREATE TEMPORARY TABLE planned AS
        SELECT g, bench.shuffled(g) AS chance, 1000 + g * 31 % 500000 AS amount,
               CASE WHEN g <= half THEN 'one' WHEN g <= half + sixth THEN 'items' WHEN g <= half + 2 * sixth THEN 'lines' END AS kind,
               CASE WHEN g <= half THEN g WHEN g <= half + sixth THEN g - half - 1
                    ELSE (g - half - sixth - 1) / 3 END AS grouped
        FROM generate_series(1::bigint, size) AS g;
    INSERT INTO ledger.statement_line (id, statement_id, bank_account_id, entry, detail, booked_on, value_on, amount, currency,
                                       kind, reversal, reference, identifiers, party, fingerprint)
    SELECT bench.id(3, g), bench.id(2, 0), bank_account, g, 0, day, day,
           CASE kind WHEN 'items' THEN 2 * amount + 1 WHEN 'one' THEN amount WHEN 'lines' THEN amount ELSE 2000000000 + g END, code,
           coalesce(kind || grouped, 'line' || g), false,
           CASE WHEN kind = 'one' THEN 'REF' || lpad(chance::text, 12, '0') WHEN kind IS NULL THEN 'BANK' || g END,
           CASE WHEN kind IN ('items', 'lines') AND grouped % 2 = 0 THEN ARRAY[upper(kind) || grouped] ELSE '{}' END,
           CASE WHEN kind IN ('items', 'lines') AND grouped % 2 = 1 THEN kind || grouped % parties END,
           sha256(convert_to(g::text, 'UTF8'))
    FROM (SELECT *, today - (CASE WHEN kind = 'one' OR kind IS NULL THEN chance ELSE grouped / parties END % 330)::integer AS day
          FROM planned) AS line;
    CREATE TEMPORARY TABLE posted AS
        SELECT 'one' AS kind, grouped, amount, today - (chance % 330)::integer - (g % 3)::integer AS day,
               'REF' || lpad(chance::text, 12, '0') AS reference, 0 AS part
        FROM planned WHERE kind = 'one'
        UNION ALL
        SELECT kind, grouped, amount + part, today - (grouped / parties % 330)::integer, NULL, part
        FROM planned CROSS JOIN (VALUES (0), (1)) AS p(part) WHERE kind = 'items'
        UNION ALL
        SELECT kind, grouped, 17 + amount % 999, today - (grouped / parties % 330)::integer, NULL, 2
        FROM planned WHERE kind = 'items' AND grouped % 998 = 1
        UNION ALL
        SELECT kind, grouped, sum(amount), today - (grouped / parties % 330)::integer, NULL, 0
        FROM planned WHERE kind = 'lines' GROUP BY kind, grouped;
    GET DIAGNOSTICS booked = ROW_COUNT;
    INSERT INTO posted SELECT NULL, NULL, 3000000000 + g, today - (bench.shuffled(g) % 330)::integer, 'OURS' || g, 0
        FROM generate_series(1, size - booked) AS g;
    INSERT INTO ledger.item (id, source, bank_account_id, amount, currency, on_date, kind, subject, reference, batch, party,
                             transaction_id, seq)
    SELECT bench.id(4, number), 'booked', bank_account, amount, code, day, 'bench',
           CASE WHEN part < 2 THEN coalesce(kind || grouped, 'item' || number) END, reference,
           CASE WHEN grouped % 2 = 0 AND kind <> 'one' THEN upper(kind) || grouped END,
           CASE WHEN grouped % 2 = 1 AND kind <> 'one' THEN kind || grouped % parties END, bench.id(5, number), 0
    FROM (SELECT *, row_number() OVER (ORDER BY hashint8(CAST(amount * 1000003 + coalesce(grouped, 0) AS bigint))) AS number FROM posted) AS item
    ORDER BY number;
    DROP TABLE planned, posted;
END $$;
