-- The roles, apart. They are NOLOGIN groups: the control plane connects as a user that is a member of them and names one per pool.
--   vx_owner   owns every table and runs the functions that must see across projects
--   vx_api     a project's own rows, under row-level security, and the create
--   vx_keys    looks a key up by its hash, and nothing else
--   vx_append  executes the append, and nothing else
--   vx_worker  deliveries, partitions, the reconciler
--   vx_admin   projects, the fleet, the key sets
do $$
declare r text;
begin
  foreach r in array array['vx_owner', 'vx_api', 'vx_keys', 'vx_append', 'vx_worker', 'vx_admin'] loop
    begin
      execute format('create role %I nologin', r);
    exception when duplicate_object or unique_violation then null;
    end;
    -- who creates a role without being a superuser may grant it, and not yet act as it
    if not pg_has_role(current_user, r, 'set') then
      execute format('grant %I to current_user', r);
    end if;
  end loop;
end $$;

create schema vx authorization vx_owner;
revoke all on schema vx from public;
grant usage on schema vx to vx_api, vx_keys, vx_append, vx_worker, vx_admin;
