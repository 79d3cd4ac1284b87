-- The roles of one database. For its superuser, connected to that database:
--
--   psql -v ON_ERROR_STOP=1 -v owner_password=.. -v service_password=.. -v monitor_password=.. -f roles.sql
--
-- ordered_work_owner    owns the schema: `manage.py migrate` connects as it, nothing else does
-- ordered_work_service  reads and writes rows, and can change nothing of the schema, so that the guard of the audit trail
--                       holds against it, too: api, events, dispatcher, worker and all commands but `migrate`
-- ordered_work_monitor  reads statistics
--
-- It may run again at any time: it also hands over what somebody else made and owns (an installation of one role).
\if :{?owner_password}
\else
    \set owner_password `cat /run/secrets/postgres_owner_password`
    \set service_password `cat /run/secrets/postgres_service_password`
    \set monitor_password `cat /run/secrets/postgres_monitor_password`
\endif

SELECT format('CREATE ROLE %I', name)
FROM unnest(ARRAY ['ordered_work_owner', 'ordered_work_service', 'ordered_work_monitor']) name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
ALTER ROLE ordered_work_owner
    LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'owner_password';
ALTER ROLE ordered_work_service
    LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'service_password';
ALTER ROLE ordered_work_monitor
    LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'monitor_password';
GRANT pg_monitor TO ordered_work_monitor;

-- What was made before by others, extensions apart.
SELECT format('ALTER TABLE %s OWNER TO ordered_work_owner', c.oid::regclass)
FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
  AND c.relowner <> 'ordered_work_owner'::regrole
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e') \gexec
SELECT format('ALTER ROUTINE %s OWNER TO ordered_work_owner', p.oid::regprocedure)
FROM pg_proc p
WHERE p.pronamespace = 'public'::regnamespace AND p.proowner <> 'ordered_work_owner'::regrole
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e') \gexec

-- The owner makes what it likes in here; the others make nothing.
SELECT format('ALTER DATABASE %I OWNER TO ordered_work_owner', current_database()) \gexec
ALTER SCHEMA public OWNER TO ordered_work_owner;
SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database()) \gexec
SELECT format('GRANT CONNECT ON DATABASE %I TO ordered_work_service, ordered_work_monitor', current_database()) \gexec
REVOKE CREATE ON SCHEMA public FROM PUBLIC;

-- Rows, now and in what later migrations make. TRUNCATE is left out: it asks no trigger.
GRANT USAGE ON SCHEMA public TO ordered_work_service, ordered_work_monitor;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO ordered_work_service;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO ordered_work_service;
ALTER DEFAULT PRIVILEGES FOR ROLE ordered_work_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO ordered_work_service;
ALTER DEFAULT PRIVILEGES FOR ROLE ordered_work_owner IN SCHEMA public
    GRANT USAGE, SELECT ON SEQUENCES TO ordered_work_service;
