-- The journal only grows. A guard on the parent sees what names the parent, a guard on each partition what names the
-- partition; a partition refuses inserts too, as they would pass the parent's checks by.
create function ledger.refuse() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception '% on %.% is refused: what is written there stays, and enters by its parent only',
        tg_op, tg_table_schema, tg_table_name using errcode = 'MZ002';
end
$$;

create function ledger.uuid7_floor(at timestamptz) returns uuid
language sql immutable
return (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;

create function ledger.add_partition(parent text, suffix text, bounds text) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    partition text := parent || '_' || suffix;
begin
    -- Attached, not created in place: that locks the parent against nobody who reads or posts.
    execute format('create table ledger.%I (like ledger.%I including all)', partition, parent);
    execute format('create trigger only_grows before insert or update or delete or truncate on ledger.%I '
                   'for each statement execute function ledger.refuse()', partition);
    execute format('alter table ledger.%I owner to mizan_journal', partition);
    execute format('alter table ledger.%I attach partition ledger.%I %s', parent, partition, bounds);
end
$$;
revoke all on function ledger.add_partition(text, text, text) from public;

-- Partitions for every month from the present one through that of `through`; how many were made. The default partition
-- catches what no month holds, so that a late call loses nothing; a month that it already caught stays there.
create function ledger.ensure_partitions(through date) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    first timestamptz := date_trunc('month', now(), 'UTC');
    parent text;
    made integer := 0;
begin
    if through > (now() + interval '5 years')::date then
        raise exception 'partitions are made for five years ahead at most' using errcode = '22023';
    end if;
    perform pg_advisory_xact_lock(hashtext('ledger.ensure_partitions'));
    while first <= (through::timestamp at time zone 'UTC') loop
        foreach parent in array array['transaction', 'posting'] loop
            if to_regclass(format('ledger.%I', parent || to_char(first at time zone 'UTC', '_YYYY_MM'))) is null then
                begin
                    perform ledger.add_partition(
                        parent, to_char(first at time zone 'UTC', 'YYYY_MM'),
                        format('for values from (%L) to (%L)', ledger.uuid7_floor(first),
                               ledger.uuid7_floor(first + interval '1 month')));
                    made := made + 1;
                exception when check_violation then
                    raise warning 'rows of % already lie in the default partition of %', first, parent;
                end;
            end if;
        end loop;
        first := first + interval '1 month';
    end loop;
    return made;
end
$$;
revoke all on function ledger.ensure_partitions(date) from public;
grant execute on function ledger.ensure_partitions(date) to mizan_worker;

select ledger.add_partition('transaction', 'default', 'default'), ledger.add_partition('posting', 'default', 'default');
select ledger.ensure_partitions((now() + interval '3 months')::date);

do $$
declare
    name text;
begin
    foreach name in array array['transaction', 'posting', 'period_event', 'seal', 'seal_key'] loop
        execute format('create trigger only_grows before update or delete or truncate on ledger.%I '
                       'for each statement execute function ledger.refuse()', name);
    end loop;
    foreach name in array array['account', 'account_balance', 'hold', 'fund'] loop
        execute format('create trigger only_changes before delete or truncate on ledger.%I '
                       'for each statement execute function ledger.refuse()', name);
    end loop;
end
$$;
-- A reference whose transaction was refused within the same database transaction is given back: see release_references.
create trigger only_grows before update or truncate on ledger.reference
    for each statement execute function ledger.refuse();
