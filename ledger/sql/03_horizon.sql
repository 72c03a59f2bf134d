-- Transaction ids are never compared across clusters: a dump restored elsewhere starts counting again. Each cluster is
-- an era; migrating adds one when the books wake up in another cluster. Every table, of whatever schema, whose rows say
-- which transaction wrote them (era and xid, both by default) has the era as a constant default: nothing is asked per row.
create function ledger.ensure_era() returns smallint
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    here bigint := (select system_identifier from pg_control_system());
    latest record;
    journal regclass;
begin
    select era, system_identifier into latest from ledger.era order by era desc limit 1;
    if latest.system_identifier is distinct from here then
        insert into ledger.era (era, system_identifier) values (coalesce(latest.era, 0) + 1, here)
        returning era into latest.era;
    end if;
    -- Partitions follow their parents.
    for journal in
        select era.attrelid::regclass from pg_attribute as era
        join pg_attrdef as value on (value.adrelid, value.adnum) = (era.attrelid, era.attnum)
        join pg_attribute as xid on xid.attrelid = era.attrelid and xid.attname = 'xid' and xid.atthasdef
        join pg_class as c on c.oid = era.attrelid and c.relkind in ('r', 'p') and not c.relispartition
        where era.attname = 'era' and era.atttypid = 'smallint'::regtype
            and pg_get_expr(value.adbin, value.adrelid) <> latest.era::text
    loop
        execute format('alter table %s alter column era set default %s', journal, latest.era);
    end loop;
    return latest.era;
end
$$;
revoke all on function ledger.ensure_era() from public;

create function ledger.current_era() returns smallint
language sql stable
return (select max(e.era) from ledger.era as e);

-- Whether the latest era is this cluster's: before, nothing may be written here, as its ids would seem to be older.
create function ledger.era_is_here() returns boolean
language sql stable
return (select e.system_identifier = c.system_identifier
        from ledger.era as e, pg_control_system() as c order by e.era desc limit 1);

-- Behind (current_era, settled_xid) nothing can still commit.
create function ledger.settled_xid() returns xid8
language sql stable
return pg_snapshot_xmin(pg_current_snapshot());

select ledger.ensure_era();
