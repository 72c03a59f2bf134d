-- Who may do what. Nobody but the owner's functions changes a balance, a fund or an account; nobody at all changes the
-- journal. `era` and `xid` are always the defaults.
grant select on all tables in schema ledger to mizan_api, mizan_worker, mizan_auditor;
do $$
declare
    partition regclass;
begin
    for partition in select inhrelid::regclass from pg_catalog.pg_inherits
        where inhparent in ('ledger.transaction'::regclass, 'ledger.posting'::regclass)
    loop
        execute format('revoke all on %s from mizan_api, mizan_worker, mizan_auditor', partition);
    end loop;
end
$$;
grant select on ledger.era, ledger.transaction, ledger.posting, ledger.seal, ledger.seal_key to mizan_sealer;
grant insert on ledger.seal, ledger.seal_key to mizan_sealer;

grant insert on ledger.fund, ledger.account to mizan_api, mizan_worker;
grant insert (id, reference, kind, effective_on, recorded_at, reverses, postings, details, salt, leaf)
    on ledger.transaction to mizan_worker;
grant insert on ledger.posting, ledger.reference to mizan_worker;
grant insert (id, reference, account_id, amount, expires_at, created_at) on ledger.hold to mizan_api, mizan_worker;
grant update (state, captured, transaction_id, ended_at) on ledger.hold to mizan_api, mizan_worker;
grant insert (id, topic, key, payload, recorded_at) on ledger.outbox to mizan_api, mizan_worker;
grant insert, update on ledger.fold, ledger.account_day, ledger.account_month to mizan_worker;

-- A partner sees the accounts of its members; staff see all. What hangs on an account follows it.
alter table ledger.account enable row level security;
create policy partner on ledger.account to mizan_api
    using (partner_id = nullif(current_setting('mizan.partner', true), '')::uuid
           or nullif(current_setting('mizan.access', true), '') = 'staff');
create policy auditor on ledger.account for select to mizan_auditor using (true);
do $$
declare
    name text;
begin
    foreach name in array array['account_balance', 'account_day', 'account_month', 'hold'] loop
        execute format('alter table ledger.%I enable row level security', name);
        execute format('create policy partner on ledger.%I to mizan_api '
                       'using (exists (select from ledger.account as a where a.id = account_id))', name);
        execute format('create policy auditor on ledger.%I for select to mizan_auditor using (true)', name);
    end loop;
end
$$;

reset role;
