set role vx_owner;

-- Row-level security is in force for everyone, the owner included. A project's rows are visible where the transaction has
-- named that project; after SET LOCAL has ended the setting is '' and not null, hence nullif.
create function vx.current_project() returns uuid language sql stable as $$
  select nullif(current_setting('vx.project', true), '')::uuid
$$;

do $$
declare t text;
begin
  foreach t in array array['projects', 'api_keys', 'content_keys', 'idempotency', 'calls', 'events', 'late_events',
                           'webhooks', 'deliveries', 'delivery_attempts', 'replays', 'probes'] loop
    execute format('alter table vx.%I enable row level security', t);
    execute format('alter table vx.%I force row level security', t);
    execute format('create policy owner_all on vx.%I to vx_owner using (true) with check (true)', t);
    execute format('create policy project_own on vx.%I to vx_api using (%s = (select vx.current_project())) with check (%s = (select vx.current_project()))',
                   t, case t when 'projects' then 'id' else 'project_id' end, case t when 'projects' then 'id' else 'project_id' end);
  end loop;
  foreach t in array array['calls', 'events', 'webhooks', 'deliveries', 'delivery_attempts', 'replays', 'content_keys', 'idempotency',
                           'probes'] loop
    execute format('create policy worker_all on vx.%I to vx_worker using (true) with check (true)', t);
  end loop;
  foreach t in array array['projects', 'api_keys', 'content_keys'] loop
    execute format('create policy admin_all on vx.%I to vx_admin using (true) with check (true)', t);
  end loop;
end $$;

grant select on vx.projects to vx_api;
grant select, insert, update on vx.api_keys to vx_api;
grant select on vx.content_keys to vx_api;
grant select, insert on vx.idempotency to vx_api;
grant select, insert on vx.calls to vx_api;
grant select, insert on vx.events to vx_api;
grant select on vx.late_events to vx_api;
grant select, insert, update on vx.webhooks to vx_api;
grant select, insert, update on vx.deliveries to vx_api;
grant select on vx.delivery_attempts to vx_api;
grant select, insert, update on vx.replays to vx_api;
grant select on vx.regions, vx.edges to vx_api;
grant select, insert, update on vx.horizon to vx_api, vx_worker;
grant select on vx.kept to vx_api;
grant select, update on vx.kept to vx_worker;

grant select on vx.calls, vx.events, vx.content_keys, vx.regions, vx.edges to vx_worker;
grant select, update on vx.webhooks, vx.deliveries to vx_worker;
grant insert on vx.deliveries to vx_worker;
grant select, insert on vx.delivery_attempts to vx_worker;
grant select, insert, update on vx.replays to vx_worker;
grant select, delete on vx.idempotency, vx.used_tokens to vx_worker;
grant select, insert on vx.desired to vx_worker;
grant select, insert, delete on vx.overdue to vx_worker;
grant select, insert, update, delete on vx.denials to vx_worker;

grant select, insert, update on vx.projects, vx.api_keys, vx.content_keys, vx.regions, vx.edges, vx.desired,
  vx.used_tokens, vx.signing_keys, vx.fleet_keys to vx_admin;
grant delete on vx.desired, vx.used_tokens to vx_admin;
grant select, insert, update on vx.drains, vx.moves to vx_admin;
grant select, update on vx.drains to vx_worker;
grant select, update, delete on vx.moves to vx_worker;
grant select, insert, update on vx.health, vx.observations to vx_admin;
grant select, insert on vx.fleet_events to vx_admin;
grant select, insert, update on vx.probes to vx_api;
grant select, delete on vx.probes to vx_worker;
grant select, insert, update, delete on vx.round_trips, vx.legs to vx_worker;
grant select, delete on vx.fleet_events to vx_worker;

-- The key look-up: one row for one hash, so that a leak of this role lists nothing.
create function vx.find_key(p_hash bytea)
returns table (id uuid, project_id uuid, mode text, role text, scopes text[], expires_at timestamptz, revoked_at timestamptz,
               settings jsonb)
language sql stable security definer set search_path = vx, pg_temp as $$
  select k.id, k.project_id, p.mode, k.role, k.scopes, k.expires_at, k.revoked_at, p.settings
    from vx.api_keys k join vx.projects p on p.id = k.project_id
   where k.secret_hash = p_hash
$$;

create function vx.touch_keys(p_keys uuid[], p_at timestamptz) returns void
language sql security definer set search_path = vx, pg_temp as $$
  update vx.api_keys set last_used_at = p_at where id = any(p_keys) and (last_used_at is null or last_used_at < p_at)
$$;

-- Functions are executable by public unless said otherwise: say otherwise.
revoke execute on all functions in schema vx from public;
-- (Per schema, a default cannot take away what the built-in default gives to everybody: this one has no schema.)
alter default privileges for role vx_owner revoke execute on functions from public;
grant execute on function vx.current_project() to vx_api, vx_owner;
grant execute on function vx.first_uuid_at(timestamptz) to vx_owner, vx_api, vx_worker;
grant execute on function vx.wants(text[], text) to vx_owner, vx_api, vx_worker;
grant execute on function vx.of_call(jsonb, uuid) to vx_owner, vx_worker;
grant execute on function vx.find_key(bytea), vx.touch_keys(uuid[], timestamptz) to vx_keys;
grant execute on function vx.ensure_partitions(timestamptz, integer), vx.drop_events(timestamptz) to vx_worker;

reset role;
