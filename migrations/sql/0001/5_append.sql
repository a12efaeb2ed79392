set role vx_owner;

-- The state a call is in after its newest event that says something about it; null: the event says nothing.
create function vx.state_after(p_type text, p_reason text, p_answered boolean) returns text language sql immutable as $$
  select case p_type
    when 'call.ringing' then 'ringing'
    when 'call.answered' then 'in_progress'
    when 'call.reconnecting' then 'reconnecting'
    when 'call.reconnected' then 'in_progress'
    when 'call.moved' then 'in_progress'
    when 'call.ended' then case
      when p_reason in ('no_answer', 'busy') then p_reason
      when p_reason = 'canceled' or (p_reason in ('ended_by_api', 'erased') and not p_answered) then 'canceled'
      when p_reason in (
        'caller_hung_up', 'agent_hung_up', 'ended_by_api', 'max_duration', 'resolved', 'idle', 'caller_silent', 'monologue', 'erased'
      ) then 'completed'
      else 'failed' end
    end
$$;

-- The first of its owner's numbers that an event takes up: its own, but for `events.lost`, which stands for all of a range
-- {epoch, from_n, to_n} that its owner can never deliver, and is numbered as the last of them. Adopted, it is one event as any other.
create function vx.first_n(p_type text, p_data jsonb, p_epoch integer, p_n integer, p_adopted boolean) returns integer
language sql immutable as $$
  select case
    when p_type = 'events.lost' and not p_adopted and (p_data -> 'epoch') = to_jsonb(p_epoch)
     and (p_data -> 'to_n') = to_jsonb(p_n) and jsonb_typeof(p_data -> 'from_n') = 'number'
    then greatest(least((p_data ->> 'from_n')::numeric, p_n), 1)::integer
    else p_n end
$$;

-- One event as `vx.append` takes it; `oe`, `o_n`: its origin, where it was adopted. (One array of these costs the driver and
-- the server half of what an array per column does.)
create type vx.given_event as (
  call_id uuid, epoch integer, n integer, event_id uuid, type text, at_ms bigint, data jsonb, content bytea,
  hash bytea, oe integer, o_n integer);

create function vx.time_of(p_ms bigint) returns timestamptz language sql immutable as $$
  select 'epoch'::timestamptz + p_ms * interval '1 millisecond'
$$;

-- A run as it was given. `plain`: of one epoch, dense, in its order; it adopts nothing, has lost nothing and leaves the call's
-- state as it is.
create type vx.given_run as (call_id uuid, epoch integer, n_first integer, n_last integer, plain boolean);

-- A call whose row is locked. `owned`: its epoch was granted to whoever writes; `n_last`: of the run that is written to it.
create type vx.held_call as (
  call_id uuid, project_id uuid, epoch integer, owned boolean, n integer, seq integer, feed_xid bigint, webhook_id uuid,
  n_last integer);

-- Appends runs of events, one run per call, from one edge. It locks the calls in id order and skips the locked ones (`busy`).
-- Per call, in this order:
--   1. unknown call; epoch never granted, or granted to another (edge, incarnation); a run that is not dense, or that adopts the
--      same event twice                                                                                         -> refused
--   2. locked by another writer                                                                                -> busy
--   3. below the call's epoch (an owner that was succeeded, or a call that has ended): durable where all of the run is
--      stored under its origin, else                                                                           -> fenced
--      and what was not stored is kept as late
--   4. a number that is stored with another hash                                                               -> conflict
--   5. does not follow the newest number                                                                       -> gap
--   6. stored                                                                                                  -> durable
--      and a number below the newest that is not stored was given up as lost before: it is kept as late
-- A higher epoch takes the call over. An adopted event whose origin is stored advances n and stores nothing. The final
-- event is stored above every grant. Everything is one transaction: the answer is true once its commit is acknowledged.
-- `stored`: how many of the run's events are new; the last of them stands at `seq`, and `feed_xid` is theirs.
-- (This is the general way, for whatever may come. `vx.append`, below, takes the runs that only go on where their call stands, which
-- is nearly all of them, and leaves the others to it: the answers are the same.)
create function vx.append_any(
  p_edge uuid, p_incarnation uuid, p_region text, p_given vx.given_event[], calls uuid[], locked uuid[])
returns table (call_id uuid, status text, durable_n integer, seq integer, detail text, stored integer, feed_xid bigint)
language plpgsql security definer set search_path = vx, pg_temp set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  xid bigint := pg_current_xact_id()::text::bigint;
begin
  -- A statement of its own: its snapshot is taken after the locks. Its plan is made once, for batches of any size. The planner
  -- expects ten rows of an array and a thousand of the series, which stands there for that alone: with ten it would compare
  -- every event with every other. The look-up in vx.events is lateral and with `offset 0`, for it must go by the index.
  return query
  with given as (
    select g.*, vx.time_of(g.at_ms) as at, coalesce(g.oe, g.epoch) as origin_epoch, coalesce(g.o_n, g.n) as origin_n,
           case when g.type = 'events.lost' then vx.first_n(g.type, g.data, g.epoch, g.n, g.oe is not null) else g.n end as n_from
      from rows from (unnest(p_given), generate_series(1, cardinality(p_given)))
        as g(call_id, epoch, n, event_id, type, at_ms, data, content, hash, oe, o_n)
  ), held as (
    select c.* from vx.calls c where c.id = any(calls)
  ), runs as (
    select g.call_id, min(g.epoch) as epoch, min(g.n_from) as n_first, max(g.n) as n_last, count(*) as k,
           min(g.n) filter (where g.type = 'call.ended') as n_final,
           min(g.epoch) = max(g.epoch) and min(g.n_from) > 0 and bool_and(g.n_from = coalesce(g.previous + 1, g.n_from)) as dense,
           count(g.oe) > count(distinct (g.oe, g.o_n)) filter (where g.oe is not null) as twice
      from (select g.*, lag(g.n) over (partition by g.call_id order by g.n) as previous from given g) g
     group by g.call_id
  ), stored as (
    -- an owner's own event above its call's n cannot be there: it is not looked for
    select g.call_id, g.origin_epoch, g.origin_n, e.hash <> g.hash as other
      from given g join held c on c.id = g.call_id cross join lateral (
             select e.hash from vx.events e
              where e.call_id = g.call_id and e.origin_epoch = g.origin_epoch and e.origin_n = g.origin_n
                and e.origin_n is not null
             offset 0) e
     where g.oe is not null or g.epoch < c.epoch or (g.epoch = c.epoch and g.n <= c.n)
  ), seen as (
    select s.call_id, count(*) as k, bool_or(s.other) as other from stored s group by s.call_id
  ), verdicts as (
    select r.*, c.project_id, c.seq as seq_before, c.feed_xid as xid_before, c.epoch as epoch_before, c.epoch_granted,
           c.webhook_id, c.answered_at,
           case when r.epoch = c.epoch then c.n else 0 end as n_before,
           case
             when c.id is null then 'refused'
             when not r.dense or r.twice or r.n_final < r.n_last then 'refused'
             when r.epoch < 1 or r.epoch > c.epoch_granted
               or c.grant_edges[r.epoch] <> p_edge or c.grant_incarnations[r.epoch] <> p_incarnation then 'refused'
             when not c.id = any(locked) then 'busy'
             when r.epoch < c.epoch then case when s.k = r.k and not s.other then 'durable' else 'fenced' end
             when s.other then 'conflict'
             when r.n_first > case when r.epoch = c.epoch then c.n else 0 end + 1 then 'gap'
             else 'durable'
           end as verdict,
           case
             when c.id is null then 'no such call'
             when not r.dense then 'the run is not dense'
             when r.twice then 'an origin stands twice in the run'
             when r.n_final < r.n_last then 'events after the final one'
             when r.epoch < 1 or r.epoch > c.epoch_granted
               or c.grant_edges[r.epoch] <> p_edge or c.grant_incarnations[r.epoch] <> p_incarnation
               then 'this epoch was not granted to this edge and incarnation'
             else ''
           end as why
      from runs r left join held c on c.id = r.call_id left join seen s on s.call_id = r.call_id
  ), writing as (
    select v.*, v.verdict = 'durable' and v.epoch >= v.epoch_before as writes from verdicts v
  ), fresh as (
    select g.*, v.project_id, v.n_before, v.epoch_granted, v.webhook_id, v.xid_before,
           v.seq_before + row_number() over (partition by g.call_id order by g.n) as seq
      from given g join writing v on v.call_id = g.call_id
     where v.writes and g.n > v.n_before
       and not exists (select 1 from stored s where s.call_id = g.call_id and s.origin_epoch = g.origin_epoch
                                                and s.origin_n = g.origin_n)
  ), put_events as (
    insert into vx.events (call_id, seq, project_id, id, type, epoch, source, origin_epoch, origin_n, region, at, data,
                           content, hash, feed_xid)
    select f.call_id, f.seq, f.project_id, f.event_id, f.type,
           case when f.type = 'call.ended' then f.epoch_granted + 1 else f.epoch end,
           'edge', f.origin_epoch, f.origin_n, p_region, f.at, f.data, f.content, f.hash,
           greatest(xid, f.xid_before)
      from fresh f
  ), put_deliveries as (
    insert into vx.deliveries (call_id, webhook_id, seq, project_id, jurisdictions, state)
    select f.call_id, w.id, f.seq, f.project_id, vx.sent_from(f.call_id),
           case when row_number() over (partition by f.call_id, w.id order by f.seq) = 1 then vx.first_state(f.call_id, w.id)
                else 'queued' end
      from fresh f cross join lateral (
        select h.id, h.types, h.metadata from vx.webhooks h where h.project_id = f.project_id and h.scope = 'project' and h.takes
        union all
        select h.id, h.types, h.metadata from vx.webhooks h where h.id = f.webhook_id and h.scope = 'call' and h.takes) w
     where vx.wants(w.types, f.type) and (w.metadata is null or vx.of_call(w.metadata, f.call_id))
  ), put_late as (
    insert into vx.late_events (call_id, origin_epoch, origin_n, project_id, id, type, edge_id, region, at, data, content,
                                hash)
    select g.call_id, g.origin_epoch, g.origin_n, v.project_id, g.event_id, g.type, p_edge, p_region, g.at, g.data,
           g.content, g.hash
      from given g join writing v on v.call_id = g.call_id
     where (v.verdict = 'fenced' or v.writes and g.n <= v.n_before)
       and not exists (select 1 from stored s where s.call_id = g.call_id and s.origin_epoch = g.origin_epoch
                                                and s.origin_n = g.origin_n)
    on conflict do nothing
  ), folds as materialized (
    select f.call_id, max(f.seq) as seq, count(*)::integer as k,
           (array_agg(f.type order by f.n desc) filter (where f.type like 'call.%'))[1] as state_type,
           min(f.at) filter (where f.type = 'call.answered') as answered_at,
           min(f.at) filter (where f.type = 'call.ended') as ended_at,
           min(f.data ->> 'end_reason') filter (where f.type = 'call.ended') as end_reason
      from fresh f group by f.call_id
  ), put_calls as (
    update vx.calls c
       set n = greatest(v.n_last, v.n_before),
           epoch = case when d.ended_at is not null then c.epoch_granted + 1 else v.epoch end,
           seq = coalesce(d.seq, c.seq),
           feed_xid = greatest(xid, c.feed_xid),
           region = p_region, edge_id = p_edge,
           answered_at = coalesce(c.answered_at, d.answered_at),
           ended_at = coalesce(c.ended_at, d.ended_at),
           end_reason = coalesce(c.end_reason, d.end_reason),
           state = coalesce(vx.state_after(d.state_type, d.end_reason,
                                           coalesce(c.answered_at, d.answered_at) is not null), c.state)
      from writing v left join folds d on d.call_id = v.call_id
     where c.id = any(locked) and c.id = v.call_id and v.writes
       and (d.seq is not null or v.n_last > v.n_before or v.epoch > v.epoch_before)
    returning c.id, c.seq
  )
  select v.call_id, v.verdict,
         case when v.verdict = 'durable' then greatest(v.n_last, case when v.writes then v.n_before end)::integer
              when v.verdict = 'gap' then v.n_before else 0 end,
         coalesce(p.seq, v.seq_before, 0), v.why, coalesce(d.k, 0), greatest(xid, v.xid_before)
    from writing v left join put_calls p on p.id = v.call_id left join folds d on d.call_id = v.call_id;

  -- what was late until its successor brought it stands in the log now
  if exists (select from unnest(p_given) g where g.oe is not null) then
    delete from vx.late_events l using unnest(p_given) g
     where l.call_id = g.call_id and l.origin_epoch = g.oe and l.origin_n = g.o_n
       and exists (select from vx.events e where e.call_id = l.call_id and e.origin_epoch = l.origin_epoch
                                             and e.origin_n = l.origin_n);
  end if;
end $$;

create function vx.append(p_edge uuid, p_incarnation uuid, p_region text, p_given vx.given_event[])
returns table (call_id uuid, status text, durable_n integer, seq integer, detail text, stored integer, feed_xid bigint)
language plpgsql security definer set search_path = vx, pg_temp set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  xid bigint := pg_current_xact_id()::text::bigint;
  runs vx.given_run[];
  held vx.held_call[];
  chosen vx.held_call[];
begin
  -- (The series: see above; and it says in which order the events came.)
  runs := array(
    select row(g.call_id, min(g.epoch), min(g.n), max(g.n),
               min(g.epoch) = max(g.epoch) and max(g.n) - min(g.n) + 1 = count(*)
               and min(g.n - g.i) = max(g.n - g.i)
               and bool_and(g.oe is null and g.type <> 'events.lost' and not starts_with(g.type, 'call.')))::vx.given_run
      from rows from (unnest(p_given), generate_series(1, cardinality(p_given)))
        as g(call_id, epoch, n, event_id, type, at_ms, data, content, hash, oe, o_n, i)
     group by g.call_id);
  -- what locks a row gives its newest version
  held := array(
    select row(c.id, c.project_id, c.epoch, c.grant_edges[c.epoch] = p_edge
               and c.grant_incarnations[c.epoch] = p_incarnation, c.n, c.seq, c.feed_xid, c.webhook_id, 0)::vx.held_call
      from vx.calls c where c.id = any(array(select r.call_id from unnest(runs) r))
     order by c.id for no key update skip locked);
  -- durable, whole and new: what the verdicts above come to for such a run
  chosen := array(
    select row(c.call_id, c.project_id, c.epoch, c.owned, c.n, c.seq, c.feed_xid, c.webhook_id,
               r.n_last)::vx.held_call
      from rows from (unnest(runs), generate_series(1, cardinality(runs))) as r(call_id, epoch, n_first, n_last, plain, i)
      join unnest(held) c on c.call_id = r.call_id
     where r.plain and r.epoch = c.epoch and c.owned and r.n_first = c.n + 1);

  if cardinality(chosen) < cardinality(runs) then
    return query select * from vx.append_any(p_edge, p_incarnation, p_region,
      array(select g from unnest(p_given) g where g.call_id not in (select p.call_id from unnest(chosen) p)),
      array(select r.call_id from unnest(runs) r where r.call_id not in (select p.call_id from unnest(chosen) p)),
      array(select c.call_id from unnest(held) c));
  end if;
  if cardinality(chosen) = 0 then
    return;
  end if;
  insert into vx.events (call_id, seq, project_id, id, type, epoch, source, origin_epoch, origin_n, region, at, data,
                         content, hash, feed_xid)
  select g.call_id, p.seq + g.n - p.n, p.project_id, g.event_id, g.type, g.epoch, 'edge', g.epoch, g.n, p_region,
         vx.time_of(g.at_ms), g.data, g.content, g.hash, greatest(xid, p.feed_xid)
    from rows from (unnest(p_given), generate_series(1, cardinality(p_given)))
      as g(call_id, epoch, n, event_id, type, at_ms, data, content, hash, oe, o_n, i)
    join unnest(chosen) p on p.call_id = g.call_id;
  if exists (select from unnest(chosen) p where p.webhook_id is not null) or exists (
       select from vx.webhooks w where w.project_id in (select p.project_id from unnest(chosen) p)
                                   and w.scope = 'project' and w.takes) then
    insert into vx.deliveries (call_id, webhook_id, seq, project_id, jurisdictions, state)
    select g.call_id, w.id, p.seq + g.n - p.n, p.project_id, vx.sent_from(g.call_id),
           case when row_number() over (partition by g.call_id, w.id order by g.n) = 1 then vx.first_state(g.call_id, w.id)
                else 'queued' end
      from rows from (unnest(p_given), generate_series(1, cardinality(p_given)))
        as g(call_id, epoch, n, event_id, type, at_ms, data, content, hash, oe, o_n, i)
      join unnest(chosen) p on p.call_id = g.call_id
      cross join lateral (
        select h.id, h.types, h.metadata from vx.webhooks h where h.project_id = p.project_id and h.scope = 'project' and h.takes
        union all
        select h.id, h.types, h.metadata from vx.webhooks h where h.id = p.webhook_id and h.scope = 'call' and h.takes) w
     where vx.wants(w.types, g.type) and (w.metadata is null or vx.of_call(w.metadata, g.call_id));
  end if;
  update vx.calls c
     set n = p.n_last, seq = p.seq + p.n_last - p.n, feed_xid = greatest(xid, c.feed_xid), region = p_region, edge_id = p_edge
    from unnest(chosen) p where c.id = p.call_id;
  return query
  select p.call_id, 'durable', p.n_last, p.seq + p.n_last - p.n, '', p.n_last - p.n, greatest(xid, p.feed_xid)
    from unnest(chosen) p;
end $$;

-- One event that the control plane or the project writes, with a deterministic key: the same key is stored once.
-- `stored`, `duplicate` (same key), `conflict` (same key, other content), `ended` (the call has its final event),
-- `unknown` (no such call in this project). A final event takes the epoch above every grant. `feed_xid`: of what was stored.
create function vx.append_control(
  p_project uuid, p_call uuid, p_source text, p_source_key text, p_event uuid, p_type text, p_at timestamptz, p_data jsonb,
  p_content bytea, p_hash bytea)
returns table (status text, seq integer, feed_xid bigint)
language plpgsql security definer set search_path = vx, pg_temp set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  xid bigint := pg_current_xact_id()::text::bigint;
  c vx.calls;
  before vx.events;
  final boolean := p_type = 'call.ended';
begin
  select * into c from vx.calls k where k.id = p_call and k.project_id = p_project for no key update;
  if not found then
    return query select 'unknown', 0, null::bigint; return;
  end if;
  select * into before from vx.events e where e.call_id = p_call and e.source_key = p_source_key;
  if found then
    return query select case when before.hash = p_hash then 'duplicate' else 'conflict' end, before.seq, null::bigint; return;
  end if;
  if c.ended_at is not null then
    return query select 'ended', c.seq, null::bigint; return;
  end if;
  insert into vx.events (call_id, seq, project_id, id, type, epoch, source, source_key, region, at, data, content,
                         hash, feed_xid)
  values (p_call, c.seq + 1, c.project_id, p_event, p_type, case when final then c.epoch_granted + 1 else c.epoch end,
          p_source, p_source_key, c.region, p_at, p_data, p_content, p_hash, greatest(xid, c.feed_xid));
  insert into vx.deliveries (call_id, webhook_id, seq, project_id, jurisdictions, state)
  select p_call, w.id, c.seq + 1, c.project_id, vx.jurisdictions_of(c.request), vx.first_state(p_call, w.id) from (select) one cross join lateral (
      select h.id, h.types, h.metadata from vx.webhooks h where h.project_id = c.project_id and h.scope = 'project' and h.takes
      union all
      select h.id, h.types, h.metadata from vx.webhooks h where h.id = c.webhook_id and h.scope = 'call' and h.takes) w
   where vx.wants(w.types, p_type) and (w.metadata is null or vx.of_call(w.metadata, p_call));
  update vx.calls k
     set seq = c.seq + 1, feed_xid = greatest(xid, c.feed_xid),
         epoch = case when final then c.epoch_granted + 1 else c.epoch end,
         ended_at = case when final then p_at end,
         end_reason = case when final then p_data ->> 'end_reason' end,
         state = coalesce(vx.state_after(p_type, p_data ->> 'end_reason', c.answered_at is not null), c.state)
   where k.id = p_call;
  return query select 'stored', c.seq + 1, greatest(xid, c.feed_xid);
end $$;

-- A fresh set of epochs above all that were granted before; null where the call has ended or is not the project's.
create function vx.grant_epochs(p_project uuid, p_call uuid, p_edges uuid[], p_incarnations uuid[], p_expire_at timestamptz)
returns integer language plpgsql security definer set search_path = vx, pg_temp as $$
declare first integer;
begin
  update vx.calls c
     set grant_edges = c.grant_edges || p_edges, grant_incarnations = c.grant_incarnations || p_incarnations,
         epoch_granted = c.epoch_granted + cardinality(p_edges), grants_expire_at = greatest(c.grants_expire_at, p_expire_at)
   where c.id = p_call and c.project_id = p_project and c.ended_at is null
  returning c.epoch_granted - cardinality(p_edges) + 1 into first;
  return first;
end $$;

grant execute on function vx.state_after(text, text, boolean) to vx_owner;
grant execute on function vx.time_of(bigint) to vx_owner;
grant execute on function vx.first_n(text, jsonb, integer, integer, boolean) to vx_owner;
grant execute on function vx.append_any(uuid, uuid, text, vx.given_event[], uuid[], uuid[]) to vx_owner;
grant execute on function vx.append(uuid, uuid, text, vx.given_event[]) to vx_append;
grant execute on function vx.append_control(uuid, uuid, text, text, uuid, text, timestamptz, jsonb, bytea, bytea)
  to vx_api, vx_worker;
grant execute on function vx.grant_epochs(uuid, uuid, uuid[], uuid[], timestamptz) to vx_api;

select vx.ensure_partitions(now() - interval '7 days', 5);

reset role;
