set role vx_owner;

-- What is to be forgotten: one call, or all that are about somebody. `selector`: whom, sealed under the project's key; null once none
-- of its calls is left.
create table vx.erasures (
  id             uuid primary key,
  project_id     uuid not null references vx.projects,
  kind           text not null check (kind in ('call', 'subject', 'number', 'metadata')),
  selector       bytea,
  actor          text not null,
  state          text not null default 'finding' check (state in ('finding', 'telling', 'done')),
  calls          integer not null default 0,
  claimed_until  timestamptz not null default '-infinity',
  created_at     timestamptz not null default clock_timestamp(),
  found_at       timestamptz,                       -- from then on none of its calls opens in the database
  done_at        timestamptz
);
create index on vx.erasures (project_id, id desc);
create index on vx.erasures (id) where state <> 'done';

create table vx.erasure_calls (
  erasure_id  uuid not null references vx.erasures,
  call_id     uuid not null,
  project_id  uuid not null,
  primary key (erasure_id, call_id)
);
create index on vx.erasure_calls (call_id);

-- Who has to do their part: instance, valkey (of a region) and edge. `done_at` null: not yet.
create table vx.erasure_places (
  erasure_id  uuid not null references vx.erasures,
  project_id  uuid not null,
  kind        text not null check (kind in ('instance', 'valkey', 'edge')),
  place       text not null,
  done_at     timestamptz,
  how         text not null default '',             -- where it was not the place itself that said so
  primary key (erasure_id, kind, place)
);

-- Instances that are alive: what they have in memory has to be forgotten too.
create table vx.instances (
  id       uuid primary key,
  seen_at  timestamptz not null default clock_timestamp()
);

do $$
declare t text;
begin
  foreach t in array array['erasures', 'erasure_calls', 'erasure_places'] loop
    execute format('alter table vx.%I enable row level security', t);
    execute format('alter table vx.%I force row level security', t);
    execute format('create policy owner_all on vx.%I to vx_owner using (true) with check (true)', t);
    execute format('create policy project_own on vx.%I to vx_api using (project_id = (select vx.current_project())) with check (project_id = (select vx.current_project()))', t);
    execute format('create policy worker_all on vx.%I to vx_worker using (true) with check (true)', t);
  end loop;
end $$;
grant select, insert on vx.erasures to vx_api;
grant select on vx.erasure_calls, vx.erasure_places to vx_api;
grant select, update on vx.erasures to vx_worker;
grant select on vx.erasure_calls to vx_worker;
grant select, insert, update on vx.erasure_places to vx_worker;
grant update (excerpt, url) on vx.delivery_attempts to vx_worker;
grant select, insert, update, delete on vx.instances to vx_worker;

-- What of a request may say who somebody is goes; what is counted and billed stays.
create function vx.origin_of(p_url text) returns text language sql immutable as $$
  select regexp_replace(p_url, '^([A-Za-z]+://)(?:[^/?#]*@)?([^/?#]*).*$', '\1\2/')
$$;

create function vx.forgotten(p_request jsonb) returns jsonb language sql immutable as $$
  select (p_request - 'network' - 'webhook_url' - 'latencies')
         || jsonb_build_object(
              'caller', (p_request -> 'caller') - 'from' - 'to',
              'agent', ((p_request -> 'agent') - 'parameters' - 'fallback_url') || jsonb_build_object('url', vx.origin_of(p_request #>> '{agent,url}')))
$$;

-- Calls of a project that an erasure is about and that are not erased, so many at most. One of the three is given.
create function vx.calls_to_erase(p_project uuid, p_subject bytea, p_number text, p_metadata jsonb, p_most integer)
returns table (call_id uuid, live boolean)
language plpgsql stable security definer set search_path = vx, pg_temp as $$
begin
  if p_subject is not null then
    return query select c.id, c.ended_at is null from vx.calls c
      where c.project_id = p_project and c.subject = p_subject and c.erased_at is null limit p_most;
  elsif p_number is not null then
    return query (select c.id, c.ended_at is null from vx.calls c
        where c.project_id = p_project and c.caller_to = p_number and c.erased_at is null limit p_most)
      union
      (select c.id, c.ended_at is null from vx.calls c
        where c.project_id = p_project and c.caller_from = p_number and c.erased_at is null limit p_most);
  else
    return query select c.id, c.ended_at is null
      from (select m.key, m.value from jsonb_each_text(p_metadata) m order by m.key limit 1) m
      join vx.call_labels l on l.label = vx.label_of(p_project, m.key, m.value)
      join vx.calls c on c.id = l.call_id
     where c.project_id = p_project and c.metadata @> p_metadata and c.erased_at is null limit p_most;
  end if;
end $$;

-- Destroys the keys of calls that have ended, and all that may say who somebody is: what remains are ids, times and counts. Every edge
-- that may still serve one of them is told in the same transaction. Which of the calls are erased now, by this or before.
-- (Without an erasure: it is their age that has come.)
create function vx.erase_calls(p_erasure uuid, p_project uuid, p_calls uuid[])
returns setof uuid
language plpgsql security definer set search_path = vx, pg_temp as $$
declare
  fresh uuid[];
begin
  perform from vx.calls c where c.id = any(p_calls) order by c.id for no key update;
  fresh := array(select c.id from vx.calls c
                  where c.id = any(p_calls) and c.project_id = p_project and c.ended_at is not null and c.erased_at is null);
  delete from vx.call_labels l using vx.calls c, jsonb_each_text(c.metadata) m
   where c.id = any(fresh) and l.call_id = c.id and l.label = vx.label_of(p_project, m.key, m.value);
  update vx.idempotency i set body_hash = '' from vx.calls c
   where c.id = any(fresh) and i.project_id = p_project and i.call_id = c.id
     and i.created_at between c.created_at - interval '1 hour' and c.created_at + interval '1 hour';
  update vx.calls c set wrapped = null, subject = null, metadata = '{}', request = vx.forgotten(c.request), erased_at = clock_timestamp()
   where c.id = any(fresh);
  -- what still waits for the URL is sent first (app/webhooks/upkeep.py)
  update vx.webhooks w set unnamed_at = clock_timestamp()
   where w.scope = 'call' and w.id in (select c.webhook_id from vx.calls c where c.id = any(fresh))
     and not exists (select from vx.calls o where o.webhook_id = w.id and o.erased_at is null);
  -- hashes, numbers and order stay; under a hash whose key is gone lies nothing that could be tried
  update vx.events e set data = case when e.type = 'call.created' then e.data || '{"metadata": {}}' else e.data end,
                         source_key = case when e.source = 'project' then null else e.source_key end
   where e.call_id = any(fresh) and (e.type = 'call.created' or e.source = 'project');
  update vx.delivery_attempts a set excerpt = null, url = null
   where a.call_id = any(fresh) and (a.excerpt is not null or a.url is not null);
  insert into vx.erasure_calls (erasure_id, call_id, project_id) select p_erasure, f, p_project from unnest(fresh) f
   where p_erasure is not null on conflict do nothing;
  update vx.erasures set calls = calls + cardinality(fresh) where id = p_erasure;
  with told as (
    select distinct g as edge, c.id as call from vx.calls c cross join lateral unnest(c.grant_edges) g
     where c.id = any(fresh) and c.grants_expire_at > now() - interval '1 hour' and exists (select from vx.edges e where e.id = g)
  ), edges as (
    select t.edge, count(*) as n from told t group by t.edge order by t.edge
  ), bumped as (
    update vx.edges e set desired_version = e.desired_version + s.n from edges s where e.id = s.edge returning e.id, e.desired_version - s.n as first
  ), places as (
    insert into vx.erasure_places (erasure_id, project_id, kind, place)
    select p_erasure, p_project, 'edge', s.edge::text from edges s where p_erasure is not null on conflict do nothing
  )
  insert into vx.desired (edge_id, version, kind, call_id, body)
  select b.id, b.first + row_number() over (partition by t.edge order by t.call), 'end', t.call, '{"end_reason": "erased"}'
    from told t join bumped b on b.id = t.edge;
  return query select c.id from vx.calls c where c.id = any(p_calls) and c.project_id = p_project and c.erased_at is not null;
end $$;

-- What projects keep for a shorter time than the deployment: up to which calls it has been done. A class of data each.
create table vx.retention (
  project_id  uuid not null references vx.projects,
  class       text not null,
  upto        uuid not null,
  primary key (project_id, class)
);
alter table vx.retention enable row level security;
alter table vx.retention force row level security;
create policy owner_all on vx.retention to vx_owner using (true) with check (true);

-- Calls whose deliveries were to go while some of them were still on their way: they go when they are done.
create table vx.retention_late (
  project_id  uuid not null references vx.projects,
  call_id     uuid not null,
  primary key (project_id, call_id)
);
alter table vx.retention_late enable row level security;
alter table vx.retention_late force row level security;
create policy owner_all on vx.retention_late to vx_owner using (true) with check (true);

-- The newest call of a project whose deliveries have gone for their age: what was delivered before is not known any more, so nothing
-- of these calls is sent again.
create function vx.deliveries_gone(p_project uuid) returns uuid
language sql stable security definer set search_path = vx, pg_temp as $$
  select coalesce((select r.upto from vx.retention r where r.project_id = p_project and r.class = 'deliveries'),
                  '00000000-0000-0000-0000-000000000000')
$$;

-- Finished deliveries of calls, and all attempts; what is not finished is kept for later.
create function vx.drop_deliveries(p_project uuid, p_calls uuid[]) returns void
language plpgsql security definer set search_path = vx, pg_temp as $$
begin
  delete from vx.delivery_attempts where call_id = any(p_calls);
  delete from vx.deliveries where call_id = any(p_calls) and state in ('delivered', 'failed');
  delete from vx.retention_late l where l.project_id = p_project and l.call_id = any(p_calls);
  insert into vx.retention_late (project_id, call_id)
  select distinct p_project, d.call_id from vx.deliveries d where d.call_id = any(p_calls);
end $$;

-- Goes on with one class of a project, over so many calls at most that were created before p_before; how many it were. A call that has
-- not ended holds those after it back.
create function vx.retain(p_project uuid, p_class text, p_before timestamptz, p_most integer) returns integer
language plpgsql security definer set search_path = vx, pg_temp as $$
declare
  after uuid; old uuid[];
begin
  insert into vx.retention (project_id, class, upto) values (p_project, p_class, '00000000-0000-0000-0000-000000000000') on conflict do nothing;
  select r.upto into after from vx.retention r where r.project_id = p_project and r.class = p_class for update skip locked;
  if not found then
    return 0;  -- another instance is at it
  end if;
  if p_class = 'deliveries' then
    perform vx.drop_deliveries(p_project, array(select l.call_id from vx.retention_late l where l.project_id = p_project
                                                 order by random() limit p_most));
  end if;
  old := array(select c.id from vx.calls c
                where c.project_id = p_project and c.id > after and c.id < vx.first_uuid_at(p_before)
                  and c.id < coalesce((select l.id from vx.calls l where l.project_id = p_project and l.ended_at is null
                                          and l.id > after order by l.id limit 1), vx.first_uuid_at(p_before))
                order by c.id limit p_most);
  if cardinality(old) = 0 then
    return 0;
  end if;
  case p_class
    when 'conversation' then
      update vx.calls set wrapped = null where id = any(old) and wrapped is not null;
    when 'personal' then
      perform vx.erase_calls(null, p_project, old);
    when 'deliveries' then
      perform vx.drop_deliveries(p_project, old);
  end case;
  update vx.retention set upto = old[cardinality(old)] where project_id = p_project and class = p_class;
  return cardinality(old);
end $$;

grant execute on function vx.retain(uuid, text, timestamptz, integer) to vx_worker;
grant execute on function vx.deliveries_gone(uuid) to vx_api, vx_worker;
grant execute on function vx.drop_deliveries(uuid, uuid[]) to vx_owner;
grant execute on function vx.forgotten(jsonb) to vx_owner;
grant execute on function vx.origin_of(text) to vx_owner, vx_worker;
grant execute on function vx.label_of(uuid, text, text) to vx_owner;
grant execute on function vx.calls_to_erase(uuid, bytea, text, jsonb, integer) to vx_worker;
grant execute on function vx.erase_calls(uuid, uuid, uuid[]) to vx_worker;

reset role;
