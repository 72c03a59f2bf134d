-- Transaction ids are never compared across clusters: a dump restored elsewhere starts counting again. Each cluster is
-- an era; migrating adds one when the books wake up in another cluster, and new rows carry it by default.
create function ledger.ensure_era() returns smallint
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    here bigint := (select system_identifier from pg_control_system());
    latest record;
    journal text;
begin
    select era, system_identifier into latest from ledger.era order by era desc limit 1;
    if latest.system_identifier = here then
        return latest.era;
    end if;
    insert into ledger.era (era, system_identifier) values (coalesce(latest.era, 0) + 1, here)
    returning era into latest.era;
    foreach journal in array array['transaction', 'outbox'] loop
        execute format('alter table ledger.%I alter column era set default %s', journal, latest.era);
    end loop;
    return latest.era;
end
$$;
revoke all on function ledger.ensure_era() from public;

create function ledger.current_era() returns smallint
language sql stable
return (select max(e.era) from ledger.era as e);

-- Behind (current_era, settled_xid) nothing can still commit.
create function ledger.settled_xid() returns xid8
language sql stable
return pg_snapshot_xmin(pg_current_snapshot());

select ledger.ensure_era();
