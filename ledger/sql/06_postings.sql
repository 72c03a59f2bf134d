-- Judges each batch of postings in sets and moves the balances; nothing else does. Order: what never changes (accounts,
-- funds, currencies, the transactions), the funds' books, what those protect (periods, closed accounts), cold balances,
-- hot balances, limits. SQLSTATE MZ001 means: refused; the hint is the reason, the detail the account.
create function ledger.posting_inserted() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
declare
    fund_ids uuid[];
    first_days date[];
    fault text;
    cold record;
    hot record;
    broken record;
begin
    select array_agg(s.fund_id), array_agg(s.first_day),
        case when bool_or(s.unknown) then 'unknown_account' when bool_or(s.crossing) then 'fund_mismatch'
             when bool_or(s.mixed) then 'currency_mismatch' end
    into fund_ids, first_days, fault
    from (
        select d.fund_id, min(i.effective_on) as first_day,
            bool_or(d.id is null or c.id is null) as unknown,
            bool_or(d.fund_id <> c.fund_id) as crossing,
            bool_or(i.currency <> d.currency or i.currency <> c.currency) as mixed
        from inserted as i
        left join ledger.account as d on d.id = i.debit_account
        left join ledger.account as c on c.id = i.credit_account
        group by d.fund_id
    ) as s;
    if fund_ids is null then
        return null;
    end if;
    if fault is not null then
        raise exception 'posting refused: %', fault using errcode = 'MZ001', hint = fault;
    end if;

    if exists (
        select from (
            select transaction_id, count(*) as postings, min(seq) as first, max(seq) as last,
                min(effective_on) as first_day, max(effective_on) as last_day
            from inserted group by transaction_id) as i
        left join ledger.transaction as t on t.id = i.transaction_id
        where t.xid is distinct from pg_current_xact_id() or t.postings <> i.postings or i.first <> 1
            or i.last <> i.postings or i.first_day <> t.effective_on or i.last_day <> t.effective_on
    ) then
        raise exception 'postings enter with their transaction, all at once' using errcode = 'MZ002';
    end if;

    perform ledger.share_books(fund_ids);
    if exists (
        select from unnest(fund_ids, first_days) as p(fund_id, first_day)
        join ledger.fund as f on f.id = p.fund_id where p.first_day <= f.closed_through
    ) then
        raise exception 'posting refused: period_closed' using errcode = 'MZ001', hint = 'period_closed';
    end if;

    with moved as materialized (
        select s.account_id, sum(s.debit)::bigint as debit, sum(s.credit)::bigint as credit
        from (select debit_account as account_id, amount as debit, 0 as credit from inserted
              union all select credit_account, 0, amount from inserted) as s
        group by s.account_id
    ), known as materialized (
        select m.account_id, m.debit, m.credit, a.hot, a.kind in ('asset', 'expense') as debit_normal, a.floor,
            a.ceiling, a.closed_at is not null as closed
        from moved as m join ledger.account as a on a.id = m.account_id
    ), locked as materialized (
        select k.* from known as k join ledger.account_balance as b on b.account_id = k.account_id
        where not k.hot order by b.account_id for no key update of b
    ), changed as (
        update ledger.account_balance as b
        set debits = b.debits + k.debit, credits = b.credits + k.credit
        from locked as k where b.account_id = k.account_id
        returning k.account_id, k.debit, k.credit, b.debits, b.credits, b.held, k.debit_normal, k.floor, k.ceiling
    )
    select
        (select array_agg(k.account_id) from known as k where k.hot) as hot_ids,
        (select min(k.account_id::text) from known as k where k.closed) as closed,
        (select array_agg(c.account_id) from changed as c
         where case when c.debit_normal
               then c.credit > 0 and c.debits - c.credits - c.debit - c.held < c.floor
                    or c.debit > 0 and c.debits - c.credits + c.credit > c.ceiling
               else c.debit > 0 and c.credits - c.debits - c.credit - c.held < c.floor
                    or c.credit > 0 and c.credits - c.debits + c.debit > c.ceiling end) as suspects
    into cold;
    if cold.closed is not null then
        raise exception 'posting refused: account_closed'
            using errcode = 'MZ001', hint = 'account_closed', detail = cold.closed;
    end if;
    cold.suspects := coalesce(cold.suspects, '{}');

    if cold.hot_ids is not null then
        with moved as materialized (
            select s.account_id, sum(s.debit)::bigint as debit, sum(s.credit)::bigint as credit
            from (select debit_account as account_id, amount as debit, 0 as credit from inserted
                  where debit_account = any (cold.hot_ids)
                  union all
                  select credit_account, 0, amount from inserted where credit_account = any (cold.hot_ids)) as s
            group by s.account_id
        ), locked as materialized (
            select m.*, a.kind in ('asset', 'expense') as debit_normal, a.floor, a.ceiling
            from moved as m
            join ledger.account as a on a.id = m.account_id
            join ledger.account_balance as b on b.account_id = m.account_id
            order by b.account_id for no key update of b
        ), changed as (
            update ledger.account_balance as b
            set debits = b.debits + k.debit, credits = b.credits + k.credit
            from locked as k where b.account_id = k.account_id
            returning k.account_id, k.debit, k.credit, b.debits, b.credits, b.held, k.debit_normal, k.floor, k.ceiling
        )
        select array_agg(c.account_id) as suspects from changed as c
        where case when c.debit_normal
              then c.credit > 0 and c.debits - c.credits - c.debit - c.held < c.floor
                   or c.debit > 0 and c.debits - c.credits + c.credit > c.ceiling
              else c.debit > 0 and c.credits - c.debits - c.credit - c.held < c.floor
                   or c.credit > 0 and c.credits - c.debits + c.debit > c.ceiling end
        into hot;
        cold.suspects := cold.suspects || coalesce(hot.suspects, '{}');
    end if;

    -- What was gross too much may still be right in its order: money that came in before it went out.
    if cold.suspects <> '{}' then
        select s.account_id, case when s.delta < 0 then 'insufficient_funds' else 'ceiling_exceeded' end as reason
        into broken
        from (
            select m.transaction_id, m.seq, a.id as account_id, m.delta, a.floor, a.ceiling, b.held,
                case when a.kind in ('asset', 'expense') then b.debits - b.credits else b.credits - b.debits end
                    - sum(m.delta) over (partition by a.id)
                    + sum(m.delta) over (partition by a.id order by m.transaction_id, m.seq) as balance
            from (
                select i.transaction_id, i.seq, a.id,
                    case when (i.debit_account = a.id) = (a.kind in ('asset', 'expense'))
                         then i.amount else -i.amount end as delta
                from inserted as i
                join ledger.account as a on a.id in (i.debit_account, i.credit_account)
                where a.id = any (cold.suspects)
            ) as m
            join ledger.account as a on a.id = m.id
            join ledger.account_balance as b on b.account_id = m.id
        ) as s
        where s.delta < 0 and s.balance - s.held < s.floor or s.delta > 0 and s.balance > s.ceiling
        order by s.transaction_id, s.seq limit 1;
        if found then
            raise exception 'posting refused: %', broken.reason
                using errcode = 'MZ001', hint = broken.reason, detail = broken.account_id::text;
        end if;
    end if;
    return null;
end
$$;
create trigger posting_inserted after insert on ledger.posting
    referencing new table as inserted for each statement execute function ledger.posting_inserted();

-- Gives back references that this very transaction claimed and then posted nothing under.
create function ledger.release_references(refused text[]) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    delete from ledger.reference as r where r.reference = any (refused)
        and not exists (select from ledger.transaction as t where t.id = r.transaction_id);
end
$$;
revoke all on function ledger.release_references(text[]) from public;
grant execute on function ledger.release_references(text[]) to mizan_worker;
