#!/bin/sh
# Run once by the postgres image when its volume is empty: the roles that Mizan's processes log in as. On a server of your
# own, run the same statements as its administrator.
set -eu

psql --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --set ON_ERROR_STOP=1 --quiet \
    --set owner="$MIZAN_OWNER_PASSWORD" --set api="$MIZAN_API_PASSWORD" --set worker="$MIZAN_WORKER_PASSWORD" \
    --set sealer="$MIZAN_SEALER_PASSWORD" --set auditor="$MIZAN_AUDITOR_PASSWORD" <<'SQL'
create role mizan_owner login password :'owner';
create role mizan_api login password :'api';
create role mizan_worker login bypassrls password :'worker';
create role mizan_sealer login password :'sealer';
create role mizan_auditor login password :'auditor';
create role mizan_journal nologin;
grant mizan_journal to mizan_owner;
create database mizan owner mizan_owner encoding 'UTF8';
revoke all on database mizan from public;
grant connect on database mizan to mizan_owner, mizan_api, mizan_worker, mizan_sealer, mizan_auditor;
SQL
