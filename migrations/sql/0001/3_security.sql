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
                           'webhooks', 'deliveries', 'delivery_attempts', 'replays', 'requests', 'probes'] loop
    execute format('alter table vx.%I enable row level security', t);
    execute format('alter table vx.%I force row level security', t);
    execute format('create policy owner_all on vx.%I to vx_owner using (true) with check (true)', t);
    execute format('create policy project_own on vx.%I to vx_api using (%s = (select vx.current_project())) with check (%s = (select vx.current_project()))',
                   t, case t when 'projects' then 'id' else 'project_id' end, case t when 'projects' then 'id' else 'project_id' end);
  end loop;
  foreach t in array array['projects', 'calls', 'events', 'webhooks', 'deliveries', 'delivery_attempts', 'replays', 'content_keys',
                           'idempotency', 'requests', 'probes'] loop
    execute format('create policy worker_all on vx.%I to vx_worker using (true) with check (true)', t);
  end loop;
  foreach t in array array['projects', 'api_keys', 'content_keys'] loop
    execute format('create policy admin_all on vx.%I to vx_admin using (true) with check (true)', t);
  end loop;
end $$;

grant select, update (settings, version) on vx.projects to vx_api;
grant select (id, mode, settings) on vx.projects to vx_worker;
grant select, insert, update on vx.api_keys to vx_api;
grant select on vx.content_keys to vx_api;
grant select, insert on vx.idempotency to vx_api;
grant select, insert on vx.calls to vx_api;
grant select, insert on vx.events to vx_api;
grant select on vx.late_events to vx_api;
grant select on vx.requests to vx_api;
grant insert on vx.requests to vx_worker;
grant select, insert, update on vx.webhooks to vx_api;
grant select, insert, update on vx.deliveries to vx_api;
grant select on vx.delivery_attempts to vx_api;
grant select, insert, update on vx.replays to vx_api;
grant select on vx.regions, vx.edges to vx_api;
grant select, insert, update on vx.horizon to vx_api, vx_worker;
grant select on vx.kept to vx_api;
grant select on vx.feed_marks to vx_api;
grant select, insert, delete on vx.feed_marks to vx_worker;
grant select, update on vx.kept to vx_worker;

grant select on vx.calls, vx.events, vx.content_keys, vx.regions, vx.edges to vx_worker;
grant select, update on vx.webhooks, vx.deliveries to vx_worker;
grant delete on vx.webhooks, vx.replays to vx_worker;
grant insert on vx.deliveries to vx_worker;
grant select, insert on vx.delivery_attempts to vx_worker;
grant select, insert, update on vx.replays to vx_worker;
grant select, delete on vx.idempotency, vx.used_tokens to vx_worker;
grant select, insert on vx.desired to vx_worker;
grant select, insert, delete on vx.overdue to vx_worker;
grant select, insert, update, delete on vx.denials to vx_worker;

grant select, insert, update on vx.projects, vx.api_keys, vx.content_keys, vx.regions, vx.edges, vx.desired,
  vx.used_tokens, vx.signing_keys, vx.fleet_keys, vx.edge_keys to vx_admin;
grant delete on vx.desired, vx.used_tokens, vx.signing_keys, vx.fleet_keys to vx_admin;
grant select, insert, update on vx.drains, vx.moves to vx_admin;
grant select, update on vx.drains to vx_worker;
grant select, update, delete on vx.moves to vx_worker;
grant select, insert, update on vx.health, vx.observations to vx_admin;
grant select, insert on vx.fleet_events to vx_admin;
grant select, insert, update on vx.probes to vx_api;
grant select, delete on vx.probes to vx_worker;
grant select, insert, update, delete on vx.round_trips, vx.legs to vx_worker;
grant select, delete on vx.fleet_events to vx_worker;

-- Functions are executable by public unless said otherwise: say otherwise.
revoke execute on all functions in schema vx from public;
-- (Per schema, a default cannot take away what the built-in default gives to everybody: this one has no schema.)
alter default privileges for role vx_owner revoke execute on functions from public;
grant execute on function vx.current_project() to vx_api, vx_owner;
grant execute on function vx.first_uuid_at(timestamptz) to vx_owner, vx_api, vx_worker;
grant execute on function vx.wants(text[], text) to vx_owner, vx_api, vx_worker;
grant execute on function vx.of_call(jsonb, uuid) to vx_owner, vx_worker;
grant execute on function vx.jurisdictions_of(jsonb), vx.sent_from(uuid) to vx_owner, vx_api, vx_worker;
grant execute on function vx.ensure_partitions(timestamptz, integer), vx.drop_events(timestamptz),
  vx.drop_calls(timestamptz, integer), vx.turn_requests(timestamptz, integer) to vx_worker;

reset role;
