set role vx_owner;

-- What one owner of a call has carried, folded from the log once the call has ended (vx.usage_of). A call that nobody has carried has a
-- row of epoch 0. `complete`: the owner has said its last word. `caller_to`, `agent_to`: the regions nearest to the caller and to the
-- backend, as the placement saw them; ends of the egress from `region`. The first owner's row counts the call.
create table vx.usage_owners (
  call_id             uuid not null,
  epoch               integer not null,
  project_id          uuid not null,
  day                 date not null,                -- in UTC, when the call ended
  region              text not null,
  transport           text not null,
  caller_to           text not null,
  agent_to            text not null,
  complete            boolean not null,
  calls               integer not null,
  caller_ms           bigint not null,
  agent_ms            bigint not null,
  caller_in_bytes     bigint not null,
  caller_out_bytes    bigint not null,
  agent_in_bytes      bigint not null,
  agent_out_bytes     bigint not null,
  caller_saved_bytes  bigint not null,
  agent_saved_bytes   bigint not null,
  turns               bigint not null,
  failovers           bigint not null,
  moves               bigint not null,
  primary key (call_id, epoch)
);
create index on vx.usage_owners (project_id, day);

-- The sums of it. Written by vx.fold_usage alone, in the transaction in which a call's rows are.
create table vx.usage_days (
  project_id          uuid not null,
  day                 date not null,
  region              text not null,
  transport           text not null,
  caller_to           text not null,
  agent_to            text not null,
  calls               numeric not null,
  owners              numeric not null,
  incomplete          numeric not null,
  caller_ms           numeric not null,
  agent_ms            numeric not null,
  caller_in_bytes     numeric not null,
  caller_out_bytes    numeric not null,
  agent_in_bytes      numeric not null,
  agent_out_bytes     numeric not null,
  caller_saved_bytes  numeric not null,
  agent_saved_bytes   numeric not null,
  turns               numeric not null,
  failovers           numeric not null,
  moves               numeric not null,
  primary key (project_id, day, region, transport, caller_to, agent_to)
);

-- Calls to be folded: they have ended, or an owner's last word came after the end. Written in the transaction that makes it so.
create table vx.usage_due (
  n           bigint generated always as identity primary key,
  call_id     uuid not null,
  project_id  uuid not null
);
create index on vx.usage_due (project_id);

-- What a project pays, from a day on until the next version's.
create table vx.prices (
  project_id  uuid not null references vx.projects,
  valid_from  date not null,
  currency    text not null,
  prices      jsonb not null,
  version     integer not null default 1,
  primary key (project_id, valid_from)
);

do $$
declare t text;
begin
  foreach t in array array['usage_owners', 'usage_days', 'usage_due', 'prices'] loop
    execute format('alter table vx.%I enable row level security', t);
    execute format('alter table vx.%I force row level security', t);
    execute format('create policy owner_all on vx.%I to vx_owner using (true) with check (true)', t);
    execute format('create policy project_own on vx.%I to vx_api using (project_id = (select vx.current_project()))', t);
    execute format('create policy worker_all on vx.%I to vx_worker using (true) with check (true)', t);
  end loop;
end $$;
create policy admin_all on vx.prices to vx_admin using (true) with check (true);

-- A number of an owner's; what is none counts for nothing, and no single one can make a sum overflow.
create function vx.usage_count(p_word jsonb, p_name text) returns bigint language sql immutable as $$
  select case when jsonb_typeof(p_word -> p_name) = 'number'
              then least(greatest(trunc((p_word ->> p_name)::numeric), 0), 1000000000000)::bigint else 0 end
$$;

-- So many milliseconds between two times, at most a week.
create function vx.usage_ms(p_from timestamptz, p_to timestamptz) returns bigint language sql immutable as $$
  select least(greatest(coalesce(trunc(extract(epoch from p_to - p_from) * 1000), 0), 0), 604800000)::bigint
$$;

-- The usage of calls, a row for each owner, from nothing but the log. Of an owner's words (`call.quality`, and `call.ended` where it
-- has ended the call) all numbers only grow, so the greatest of each counts, in whatever order and however often they came; also of
-- those that came late, for what an owner has carried under its own epoch no successor can know. An owner without a last word
-- is counted up to the newest event that the log has of it.
create function vx.usage_of(p_calls uuid[]) returns setof vx.usage_owners
language sql stable security invoker set search_path = vx, pg_temp as $$
  with facts as (
    select e.call_id, e.origin_epoch as epoch, e.type, e.at, e.data, false as late from vx.events e
     where e.call_id = any(p_calls) and e.source = 'edge' and e.origin_epoch is not null
    union all
    select l.call_id, l.origin_epoch, l.type, l.at, l.data, true from vx.late_events l
     where l.call_id = any(p_calls) and l.type = 'call.quality'
  ), owners as (
    select f.call_id, f.epoch,
           bool_or(w.word is not null and (f.type = 'call.ended' or f.data -> 'final' = 'true')) as complete,
           max(vx.usage_count(w.word, 'caller_ms')) as caller_ms, max(vx.usage_count(w.word, 'agent_ms')) as agent_ms,
           max(vx.usage_count(w.word, 'caller_in_bytes')) as caller_in_bytes,
           max(vx.usage_count(w.word, 'caller_out_bytes')) as caller_out_bytes,
           max(vx.usage_count(w.word, 'agent_in_bytes')) as agent_in_bytes,
           max(vx.usage_count(w.word, 'agent_out_bytes')) as agent_out_bytes,
           max(vx.usage_count(w.word, 'caller_saved_bytes')) as caller_saved_bytes,
           max(vx.usage_count(w.word, 'agent_saved_bytes')) as agent_saved_bytes,
           min(f.at) filter (where not f.late) as first_at, max(f.at) filter (where not f.late) as newest_at,
           min(f.at) filter (where f.type = 'agent.connected') as up_at,
           min(f.at) filter (where f.type = 'agent.disconnected') as down_at,
           count(*) filter (where f.type in ('turn.ended', 'turn.interrupted')) as turns,
           count(*) filter (where f.type = 'call.reconnecting' and f.data ->> 'reason' is distinct from 'agent_lost') as failovers,
           count(*) filter (where f.type = 'call.moved') as moves
      from facts f cross join lateral (
        select case when f.type in ('call.quality', 'call.ended') and jsonb_typeof(f.data -> 'usage') = 'object'
                    then f.data -> 'usage' end as word) w
     group by f.call_id, f.epoch
  ), near as (
    select c.id, coalesce(c.request #>> '{caller,kind}', 'websocket') as transport,
           coalesce((select x ->> 'region' from jsonb_array_elements(c.placement -> 'candidates') x
                      order by (x ->> 'rtt_ms')::double precision, x ->> 'region' limit 1), '') as caller_to,
           coalesce((select x ->> 'region' from jsonb_array_elements(c.placement -> 'candidates') x
                      where x ->> 'backend_ms' is not null
                      order by (x ->> 'backend_ms')::double precision, x ->> 'region' limit 1), '') as agent_to
      from vx.calls c where c.id = any(p_calls)
  )
  select c.id, coalesce(o.epoch, 0), c.project_id, (coalesce(c.ended_at, now()) at time zone 'UTC')::date,
         coalesce((select e.region from vx.edges e where e.id = c.grant_edges[o.epoch]), c.region, ''),
         n.transport, n.caller_to, n.agent_to, coalesce(o.complete, true),
         case when o.epoch is null or o.epoch = min(o.epoch) over (partition by c.id) then 1 else 0 end,
         coalesce(case when o.complete then o.caller_ms
                       else greatest(o.caller_ms, vx.usage_ms(o.first_at, o.newest_at)) end, 0),
         coalesce(case when o.complete then o.agent_ms
                       else greatest(o.agent_ms, vx.usage_ms(o.up_at, least(o.newest_at, o.down_at))) end, 0),
         coalesce(o.caller_in_bytes, 0), coalesce(o.caller_out_bytes, 0), coalesce(o.agent_in_bytes, 0),
         coalesce(o.agent_out_bytes, 0), coalesce(o.caller_saved_bytes, 0), coalesce(o.agent_saved_bytes, 0),
         coalesce(o.turns, 0), coalesce(o.failovers, 0), coalesce(o.moves, 0)
    from vx.calls c join near n on n.id = c.id left join owners o on o.call_id = c.id
$$;

-- Adds the rows of calls to the days' sums, or takes them away (`p_sign` -1).
create function vx.add_usage(p_calls uuid[], p_sign integer) returns void
language sql security definer set search_path = vx, pg_temp as $$
  insert into vx.usage_days as d
  select o.project_id, o.day, o.region, o.transport, o.caller_to, o.agent_to, p_sign * sum(o.calls),
         p_sign * count(*) filter (where o.epoch > 0),
         p_sign * count(*) filter (where not o.complete), p_sign * sum(o.caller_ms), p_sign * sum(o.agent_ms),
         p_sign * sum(o.caller_in_bytes), p_sign * sum(o.caller_out_bytes), p_sign * sum(o.agent_in_bytes),
         p_sign * sum(o.agent_out_bytes), p_sign * sum(o.caller_saved_bytes), p_sign * sum(o.agent_saved_bytes),
         p_sign * sum(o.turns), p_sign * sum(o.failovers), p_sign * sum(o.moves)
    from vx.usage_owners o where o.call_id = any(p_calls)
   group by 1, 2, 3, 4, 5, 6
  on conflict (project_id, day, region, transport, caller_to, agent_to) do update
     set calls = d.calls + excluded.calls, owners = d.owners + excluded.owners, incomplete = d.incomplete + excluded.incomplete,
         caller_ms = d.caller_ms + excluded.caller_ms, agent_ms = d.agent_ms + excluded.agent_ms,
         caller_in_bytes = d.caller_in_bytes + excluded.caller_in_bytes,
         caller_out_bytes = d.caller_out_bytes + excluded.caller_out_bytes,
         agent_in_bytes = d.agent_in_bytes + excluded.agent_in_bytes,
         agent_out_bytes = d.agent_out_bytes + excluded.agent_out_bytes,
         caller_saved_bytes = d.caller_saved_bytes + excluded.caller_saved_bytes,
         agent_saved_bytes = d.agent_saved_bytes + excluded.agent_saved_bytes,
         turns = d.turns + excluded.turns, failovers = d.failovers + excluded.failovers, moves = d.moves + excluded.moves
$$;

-- Folds calls that are due, at most so many; how many there were. A call that was folded before is taken out of the sums first, so
-- that it stands in them once, as the log has it now; one whose events are gone stays as it was folded. One transaction, and one instance at a time: what it was due for, its rows
-- and the sums change together or not at all.
create function vx.fold_usage(p_most integer) returns integer
language plpgsql security definer set search_path = vx, pg_temp as $$
declare due bigint[]; chosen uuid[];
begin
  if not pg_try_advisory_xact_lock(7423101) then
    return 0;
  end if;
  due := array(select d.n from vx.usage_due d order by d.n limit p_most);
  chosen := array(select distinct d.call_id from vx.usage_due d where d.n = any(due)
                     and (d.call_id >= (select k.calls_from from vx.kept k where k.log = 'events')
                          or not exists (select from vx.usage_owners o where o.call_id = d.call_id)));
  delete from vx.usage_due d where d.n = any(due);
  perform vx.add_usage(chosen, -1);
  delete from vx.usage_owners o where o.call_id = any(chosen);
  insert into vx.usage_owners
  select u.* from vx.usage_of(array(select c.id from vx.calls c where c.id = any(chosen) and c.ended_at is not null)) u;
  perform vx.add_usage(chosen, 1);
  return cardinality(due);
end $$;

-- All of a project's calls whose events are kept are folded anew; how many there are.
create function vx.refold_usage(p_project uuid) returns bigint
language sql security definer set search_path = vx, pg_temp as $$
  with again as (
    insert into vx.usage_due (call_id, project_id)
    select c.id, c.project_id from vx.calls c
     where c.project_id = p_project and c.ended_at is not null
       and c.id >= (select k.calls_from from vx.kept k where k.log = 'events')
    returning 1)
  select count(*) from again
$$;

create function vx.usage_falls_due() returns trigger language plpgsql security definer set search_path = vx, pg_temp as $$
begin
  if tg_table_name like 'calls%' then
    insert into vx.usage_due (call_id, project_id) values (new.id, new.project_id);
  elsif exists (select from vx.calls c where c.id = new.call_id and c.ended_at is not null) then
    insert into vx.usage_due (call_id, project_id) values (new.call_id, new.project_id);
  end if;
  return null;
end $$;
create trigger usage_of_ended after update of ended_at on vx.calls for each row
  when (old.ended_at is null and new.ended_at is not null) execute function vx.usage_falls_due();
create trigger usage_of_late after insert on vx.late_events for each row
  when (new.type = 'call.quality') execute function vx.usage_falls_due();

grant select on vx.usage_owners, vx.usage_days, vx.usage_due, vx.prices to vx_api;
grant select, delete on vx.usage_owners to vx_worker;
grant select on vx.usage_due to vx_worker;
grant select, insert, update on vx.prices to vx_admin;
grant execute on function vx.usage_of(uuid[]) to vx_api, vx_owner;
grant execute on function vx.usage_count(jsonb, text), vx.usage_ms(timestamptz, timestamptz) to vx_api, vx_owner;
grant execute on function vx.add_usage(uuid[], integer), vx.usage_falls_due() to vx_owner;
grant execute on function vx.fold_usage(integer) to vx_worker;
grant execute on function vx.refold_usage(uuid) to vx_admin;

reset role;
