create function ledger.hold_placed() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    broken record;
begin
    if exists (select from placed where state <> 'active') then
        raise exception 'a hold begins active' using errcode = 'MZ002';
    end if;
    perform ledger.lock_accounts(array(select distinct account_id from placed));
    update ledger.account_balance as b set held = b.held + p.amount
    from (select account_id, sum(amount)::bigint as amount from placed group by account_id) as p
    where b.account_id = p.account_id;
    select a.id, case when a.closed_at is not null then 'account_closed' else 'insufficient_funds' end as reason
    into broken
    from ledger.account as a join ledger.account_balance as b on b.account_id = a.id
    where a.id in (select account_id from placed) and (a.closed_at is not null or
        case when a.kind in ('asset', 'expense') then b.debits - b.credits else b.credits - b.debits end - b.held
            < a.floor)
    limit 1;
    if found then
        raise exception 'hold refused: %', broken.reason
            using errcode = 'MZ001', hint = broken.reason, detail = broken.id::text;
    end if;
    return null;
end
$$;
create trigger hold_placed after insert on ledger.hold
    referencing new table as placed for each statement execute function ledger.hold_placed();

create function ledger.hold_changed() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    if old.state <> 'active' or new.state = 'active'
        or (new.id, new.reference, new.account_id, new.amount, new.expires_at, new.created_at)
            is distinct from (old.id, old.reference, old.account_id, old.amount, old.expires_at, old.created_at) then
        raise exception 'a hold ends once and changes in nothing else' using errcode = 'MZ002';
    end if;
    return new;
end
$$;
create trigger hold_changed before update on ledger.hold for each row execute function ledger.hold_changed();

create function ledger.hold_ended() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if exists (
        select from ended as e where e.state = 'captured' and not exists (
            select from ledger.transaction as t where t.id = e.transaction_id and t.xid = pg_current_xact_id())
    ) then
        raise exception 'a hold is captured by a transaction posted with it' using errcode = 'MZ002';
    end if;
    perform ledger.lock_accounts(array(select distinct account_id from ended));
    update ledger.account_balance as b set held = b.held - e.amount
    from (select account_id, sum(amount)::bigint as amount from ended group by account_id) as e
    where b.account_id = e.account_id;
    return null;
end
$$;
create trigger hold_ended after update on ledger.hold
    referencing new table as ended for each statement execute function ledger.hold_ended();
