create function ledger.account_opened() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if exists (select from opened where floor > 0 or ceiling < 0) then
        raise exception 'an account opens within its limits' using errcode = 'MZ002';
    end if;
    insert into ledger.account_balance (account_id) select id from opened;
    return null;
end
$$;
create trigger account_opened after insert on ledger.account
    referencing new table as opened for each statement execute function ledger.account_opened();

create function ledger.account_changed() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    if (new.id, new.fund_id, new.code, new.owner, new.kind, new.currency, new.hot, new.created_at)
        is distinct from (old.id, old.fund_id, old.code, old.owner, old.kind, old.currency, old.hot, old.created_at)
        or old.closed_at is not null then
        raise exception 'an account changes its limits and closes; nothing else' using errcode = 'MZ002';
    end if;
    return new;
end
$$;
create trigger account_changed before update on ledger.account
    for each row execute function ledger.account_changed();

create function ledger.fund_changed() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    if (new.id, new.code, new.number, new.time_zone, new.created_at)
        is distinct from (old.id, old.code, old.number, old.time_zone, old.created_at) then
        raise exception 'a fund changes its name and its period; nothing else' using errcode = 'MZ002';
    end if;
    return new;
end
$$;
create trigger fund_changed before update on ledger.fund for each row execute function ledger.fund_changed();

-- The books of a fund are shared by all who post and taken alone by who closes a period, closes an account or changes a
-- limit: advisory locks (1298818382, fund.number). Read what they protect in a statement that starts after they are held.
create function ledger.share_books(funds uuid[]) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform pg_advisory_xact_lock_shared(1298818382, f.number::integer)
    from (select number from ledger.fund where id = any (funds) order by number offset 0) as f;
end
$$;
create function ledger.take_books(fund uuid) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    perform pg_advisory_xact_lock(1298818382, f.number::integer) from ledger.fund as f where f.id = fund;
    if not found then
        raise exception 'unknown fund' using errcode = 'P0002';
    end if;
end
$$;
revoke all on function ledger.share_books(uuid[]), ledger.take_books(uuid) from public;
grant execute on function ledger.share_books(uuid[]) to mizan_api, mizan_worker;

-- The one lock order: books, cold accounts by id, hot accounts by id.
create function ledger.lock_accounts(accounts uuid[]) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off
as $$
begin
    perform ledger.share_books(array(select distinct a.fund_id from ledger.account as a where a.id = any (accounts)));
    perform from (
        select b.account_id from ledger.account as a join ledger.account_balance as b on b.account_id = a.id
        where a.id = any (accounts) and not a.hot order by b.account_id for no key update of b) as locked;
    perform from (
        select b.account_id from ledger.account as a join ledger.account_balance as b on b.account_id = a.id
        where a.id = any (accounts) and a.hot order by b.account_id for no key update of b) as locked;
end
$$;
revoke all on function ledger.lock_accounts(uuid[]) from public;
grant execute on function ledger.lock_accounts(uuid[]) to mizan_api, mizan_worker;

-- Whether the limits were set: an account is always within its limits, so none is set that it is beyond already.
create function ledger.set_limits(account_id uuid, new_floor bigint, new_ceiling bigint) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform ledger.take_books((select a.fund_id from ledger.account as a where a.id = $1));
    update ledger.account as a set floor = new_floor, ceiling = new_ceiling
    from (
        select b.held, b.debits - b.credits as debit, b.credits - b.debits as credit
        from ledger.account_balance as b where b.account_id = $1
    ) as b
    where a.id = $1
        and (case when a.kind in ('asset', 'expense') then debit else credit end - held < new_floor) is not true
        and (case when a.kind in ('asset', 'expense') then debit else credit end > new_ceiling) is not true;
    return found;
end
$$;

create function ledger.close_account(account_id uuid, at timestamptz) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform ledger.take_books((select a.fund_id from ledger.account as a where a.id = $1));
    update ledger.account as a set closed_at = at from ledger.account_balance as b
    where a.id = $1 and b.account_id = $1 and b.debits = b.credits and b.held = 0 and a.closed_at is null;
    return found;
end
$$;
revoke all on function ledger.set_limits(uuid, bigint, bigint), ledger.close_account(uuid, timestamptz) from public;
grant execute on function ledger.set_limits(uuid, bigint, bigint), ledger.close_account(uuid, timestamptz)
    to mizan_worker;

-- Closing never moves back and reopening never forward; both leave an event. The day through which the fund is closed.
create function ledger.move_period(
    fund uuid, event uuid, new_through date, event_kind text, event_remark text, event_actor text, at timestamptz
) returns date
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    current_through date;
begin
    perform ledger.take_books(fund);
    select f.closed_through into current_through from ledger.fund as f where f.id = fund;
    if event_kind = 'close' and new_through <= current_through
        or event_kind = 'reopen' and (new_through >= current_through or event_remark = '') then
        return null;
    end if;
    update ledger.fund as f set closed_through = new_through where f.id = fund;
    insert into ledger.period_event (id, fund_id, through, kind, remark, actor, recorded_at)
    values (event, fund, new_through, event_kind, event_remark, event_actor, at);
    return new_through;
end
$$;
revoke all on function ledger.move_period(uuid, uuid, date, text, text, text, timestamptz) from public;
grant execute on function ledger.move_period(uuid, uuid, date, text, text, text, timestamptz)
    to mizan_api, mizan_worker;
