-- The roles. Embedded mode and production create them with passwords first; what is missing is made here without a
-- log-in. mizan_journal owns the journal's partitions and nobody logs in as it.
do $$
declare
    wanted record;
begin
    for wanted in
        select * from (values
            ('mizan_owner', 'nologin'), ('mizan_journal', 'nologin'), ('mizan_api', 'nologin'),
            ('mizan_worker', 'nologin bypassrls'), ('mizan_sealer', 'nologin'), ('mizan_auditor', 'nologin')
        ) as role(name, options)
    loop
        if not exists (select from pg_catalog.pg_roles where rolname = wanted.name) then
            begin
                execute format('create role %I %s', wanted.name, wanted.options);
            exception when duplicate_object or unique_violation then
                null; -- another database of this cluster is being migrated at the same time
            end;
        end if;
    end loop;
    if not pg_has_role('mizan_owner', 'mizan_journal', 'member') then
        grant mizan_journal to mizan_owner;
    end if;
    -- Run by a superuser, everything still belongs to mizan_owner: functions that run with their owner's rights
    -- must not be a superuser's.
    if (select rolsuper from pg_catalog.pg_roles where rolname = current_user) then
        execute format('grant create on database %I to mizan_owner', current_database());
        set local role mizan_owner;
    end if;
end
$$;

create schema ledger;
grant usage, create on schema ledger to mizan_journal;
grant usage on schema ledger to mizan_api, mizan_worker, mizan_sealer, mizan_auditor;
