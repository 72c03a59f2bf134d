-- Books loaded in bulk for the reads benchmark. Transactions are a millisecond apart and end now; their effective days
-- are spread over the year before `today`. Every `every`-th one is the first member's, the others go round.
create schema bench;

create procedure bench.load(
    first bigint, last bigint, total bigint, now_ms bigint, today date, receivable uuid, uncommitted uuid, committed uuid,
    savings uuid[], match uuid[], contributions uuid[], every bigint
) language sql as $$
    insert into ledger.transaction (id, reference, kind, effective_on, recorded_at, postings, salt, leaf)
    select (lpad(to_hex(now_ms - total + i), 12, '0') || '70008000000000000000')::uuid, 'load:' || i, 'contribution',
        today - ((total - i) * 365 / total)::int, to_timestamp((now_ms - total + i) / 1000.0), 4, '\x00', '\x00'
    from generate_series(first, last) as i;

    insert into ledger.posting (transaction_id, seq, debit_account, credit_account, amount, currency, effective_on)
    select (lpad(to_hex(now_ms - total + i), 12, '0') || '70008000000000000000')::uuid, p.seq, p.debit, p.credit, p.amount,
        'PHP', today - ((total - i) * 365 / total)::int
    from generate_series(first, last) as i
    cross join lateral (
        select case when i % every = 0 then 1 else 2 + i % (cardinality(savings) - 1) end as member
    ) as m
    cross join lateral (values
        (1, receivable, savings[m.member], 5000),
        (2, uncommitted, committed, 2500),
        (3, committed, match[m.member], 2500),
        (4, receivable, contributions[m.member], 1500)
    ) as p (seq, debit, credit, amount);
$$;

create procedure bench.fold() language sql as $$
    insert into ledger.account_day (account_id, day, debits, credits)
    select s.account_id, s.day, sum(s.debits), sum(s.credits)
    from (select debit_account as account_id, effective_on as day, amount as debits, 0 as credits from ledger.posting
          union all select credit_account, effective_on, 0, amount from ledger.posting) as s
    group by s.account_id, s.day;

    insert into ledger.account_month (account_id, month, debits, credits)
    select account_id, date_trunc('month', day)::date, sum(debits), sum(credits) from ledger.account_day group by 1, 2;

    insert into ledger.fold (name, era, xid)
    select 'movements', 1, (max(xid::text::bigint) + 1)::text::xid8 from ledger.transaction;
$$;

create procedure bench.balance() language sql as $$
    update ledger.account_balance as b set debits = s.debits, credits = s.credits
    from (
        select m.account_id, sum(m.debits) as debits, sum(m.credits) as credits
        from (select debit_account as account_id, amount as debits, 0 as credits from ledger.posting
              union all select credit_account, 0, amount from ledger.posting) as m
        group by m.account_id
    ) as s
    where b.account_id = s.account_id;
$$;
