-- The hand-written floor: the same tables' shape and indexes as schema `ledger`, with nothing that checks.
create schema floor;
create table floor.account_balance (like ledger.account_balance including all) with (fillfactor = 50);
insert into floor.account_balance select * from ledger.account_balance;
create table floor.reference (like ledger.reference including all);
create table floor.outbox (like ledger.outbox including all);
create table floor.transaction (like ledger.transaction including all) partition by range (id);
create table floor.posting (like ledger.posting including all) partition by range (transaction_id);
do $$
declare
    month record;
begin
    for month in
        select p.relname as parent, c.relname as name, pg_get_expr(c.relpartbound, c.oid) as bounds
        from pg_inherits as i join pg_class as p on p.oid = i.inhparent join pg_class as c on c.oid = i.inhrelid
        where i.inhparent in ('ledger.transaction'::regclass, 'ledger.posting'::regclass)
    loop
        execute format('create table floor.%I partition of floor.%I %s', month.name, month.parent, month.bounds);
    end loop;
end
$$;
grant usage on schema floor to mizan_worker;
grant all on all tables in schema floor to mizan_worker;
