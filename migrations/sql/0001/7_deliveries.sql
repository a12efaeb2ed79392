set role vx_owner;

-- A line is what one endpoint gets of one call, in order: one of what is new, and one of what is sent again. *Active* is what is
-- pending, or under way and not parked. What stands behind it in the line of the new is `queued`, so that a claim does not look
-- at it again and again; whoever settles the last active one before it makes it pending.

-- The state of a new delivery behind which nothing else of its statement stands: `queued` where there is an active one, which is
-- then held until this commits, so that whoever settles it sees the new one. One that somebody else holds may just be settled:
-- then the new one is `pending`, and the claim, which looks at what is before, decides. It never waits.
create function vx.first_state(p_call uuid, p_webhook uuid) returns text
language plpgsql volatile security invoker set search_path = vx, pg_temp as $$
begin
  perform from vx.deliveries d
    where d.call_id = p_call and d.webhook_id = p_webhook and not d.replay
      and (d.state = 'pending' or d.state = 'in_flight' and not d.parked)
    order by d.seq limit 1 for no key update skip locked;
  return case when found then 'queued' else 'pending' end;
end $$;

-- What is due, claimed: see app/webhooks/claims.py. From endpoint to endpoint, and from one set of jurisdictions to the next, along the
-- index; of each for which something is due that may be sent from `p_jurisdictions` the oldest, so many that all fill `p_most`. The sets
-- of one endpoint share its room: `p_rooms` of `p_webhooks`, `p_room` of any other. `offset 0` has the planner look at what stands before
-- a delivery one by one.
--
-- A claim reads what it takes and not what waits, however much that is. So it is ordered by the jurisdictions too, though they are given:
-- under row-level security the planner draws nothing from an equality whose operator might tell of rows, as that of arrays might, and would
-- sort what waits. And it may read along indexes and nowhere else: what waits may all have come since it was counted last, in a week's
-- first minutes above all, and of a few rows the planner thinks that sorting them costs nothing.
create function vx.claim_deliveries(
  p_worker uuid, p_most integer, p_webhooks uuid[], p_rooms integer[], p_room integer, p_jurisdictions text[], p_held_s float8)
returns table (call_id uuid, webhook_id uuid, seq integer, attempts integer, number integer, first_at timestamptz, overtook boolean,
               replay boolean)
language plpgsql security invoker set search_path = vx, pg_temp
  set enable_sort = off set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
#variable_conflict use_column
begin
  return query
  with recursive hooks as (
    (select d.webhook_id as id, d.jurisdictions, d.next_at from vx.deliveries d where d.state in ('pending', 'parked')
      order by d.webhook_id, d.jurisdictions, d.next_at limit 1)
    union all
    select n.webhook_id, n.jurisdictions, n.next_at from hooks h cross join lateral (
      select d.webhook_id, d.jurisdictions, d.next_at from vx.deliveries d
       where d.state in ('pending', 'parked') and (d.webhook_id, d.jurisdictions) > (h.id, h.jurisdictions)
       order by d.webhook_id, d.jurisdictions, d.next_at limit 1) n
  ), served as materialized (
    select h.id, h.jurisdictions, count(*) over () as n,
           (h.room + row_number() over (partition by h.id) - 1) / count(*) over (partition by h.id) as room from (
      select h.id, h.jurisdictions, coalesce(k.room, p_room) as room
        from hooks h left join unnest(p_webhooks, p_rooms) k(id, room) on k.id = h.id
       where h.next_at <= clock_timestamp() and coalesce(k.room, p_room) > 0
         and (h.jurisdictions = '{}' or h.jurisdictions && p_jurisdictions)
       order by random() limit p_most) h
  ), due as (
    select p.* from served h cross join lateral (
      select p.call_id, p.webhook_id, p.seq,
             exists (select from vx.deliveries b where b.webhook_id = p.webhook_id and b.call_id = p.call_id and b.seq < p.seq
                        and b.replay = p.replay and b.parked and b.state in ('parked', 'in_flight')) as overtakes
        from vx.deliveries p
       where p.webhook_id = h.id and p.jurisdictions = h.jurisdictions and p.state in ('pending', 'parked')
         and p.next_at <= clock_timestamp()
         and not exists (select from vx.deliveries b
                          where b.webhook_id = p.webhook_id and b.call_id = p.call_id and b.seq < p.seq and b.replay = p.replay
                            and (b.state in ('pending', 'queued') or b.state = 'in_flight' and not b.parked) offset 0)
       order by p.jurisdictions, p.next_at limit least(h.room, ceil(p_most::float8 / h.n))
       for no key update of p skip locked) p
  )
  update vx.deliveries d
     set state = 'in_flight', claimed_by = p_worker, claimed_until = clock_timestamp() + make_interval(secs => p_held_s),
         attempts = d.attempts + 1, first_at = coalesce(d.first_at, clock_timestamp()), overtook = d.overtook or due.overtakes
    from due
   where d.call_id = due.call_id and d.webhook_id = due.webhook_id and d.seq = due.seq
  returning d.call_id, d.webhook_id, d.seq, d.attempts, d.attempts - d.base, d.first_at, d.overtook, d.replay;
end $$;

-- What came of attempts, and the next of their lines: how many are due now. A claim that another worker has taken over meanwhile is left alone.
-- The arrays are in the order of (call, endpoint, seq), so that two that settle the same rows cannot wait for each other.
create function vx.settle(
  p_worker uuid, p_call uuid[], p_webhook uuid[], p_seq integer[], p_attempt integer[], p_project uuid[], p_at timestamptz[],
  p_duration_ms integer[], p_status integer[], p_error text[], p_excerpt text[], p_state text[], p_next_at timestamptz[],
  p_url text[] default null)
returns integer
language plpgsql security invoker set search_path = vx, pg_temp as $$
declare
  calls uuid[];
  webhooks uuid[];
  well uuid[];
  ill uuid[];
  again boolean;
  due integer := 0;
begin
  insert into vx.delivery_attempts (call_id, webhook_id, seq, attempt, project_id, at, duration_ms, status, error, excerpt, url, next_at)
  select t.call_id, t.webhook_id, t.seq, t.attempt, t.project_id, t.at, t.duration_ms, t.status, t.error,
         case when c.erased_at is null then t.excerpt end, case when c.erased_at is null then t.url end,
         case when t.state in ('pending', 'parked') then t.next_at end
    from unnest(p_call, p_webhook, p_seq, p_attempt, p_project, p_at, p_duration_ms, p_status, p_error, p_excerpt, p_url, p_state,
                p_next_at)
      as t(call_id, webhook_id, seq, attempt, project_id, at, duration_ms, status, error, excerpt, url, state, next_at)
    left join vx.calls c on c.id = t.call_id
  on conflict do nothing;

  with settled as (
    update vx.deliveries d
       set state = t.state, parked = d.parked or t.state = 'parked', next_at = t.next_at, claimed_by = null,
           last_status = t.status, last_error = t.error,
           done_at = case when t.state in ('delivered', 'failed') then clock_timestamp() end
      from unnest(p_call, p_webhook, p_seq, p_attempt, p_status, p_error, p_state, p_next_at)
        as t(call_id, webhook_id, seq, attempt, status, error, state, next_at)
     where d.call_id = t.call_id and d.webhook_id = t.webhook_id and d.seq = t.seq
       and d.claimed_by = p_worker and d.attempts = t.attempt
    returning d.call_id, d.webhook_id, d.state, d.replay
  ), lines as (
    select distinct s.call_id, s.webhook_id from settled s where s.state <> 'pending' and not s.replay
  )
  select (select array_agg(l.call_id) from lines l), (select array_agg(l.webhook_id) from lines l),
         (select array_agg(distinct s.webhook_id) from settled s where s.state = 'delivered'),
         (select array_agg(distinct s.webhook_id) from settled s where s.state <> 'delivered'),
         exists (select from settled s where s.state <> 'pending' and s.replay)
    into calls, webhooks, well, ill, again;

  -- How long an endpoint has done nothing but fail. Written where it changes, and not where somebody else is writing it.
  if well is not null then
    update vx.webhooks w set failing_since = null, warned = 0
     where w.id in (select h.id from vx.webhooks h where h.id = any(well) and h.failing_since is not null
                     order by h.id for no key update skip locked);
  end if;
  if ill is not null then
    update vx.webhooks w set failing_since = clock_timestamp()
     where w.id in (select h.id from vx.webhooks h where h.id = any(ill) and not h.id = any(coalesce(well, '{}'))
                       and h.failing_since is null
                     order by h.id for no key update skip locked);
  end if;

  -- A statement of its own, which sees what was queued while the one before waited.
  if calls is not null then
    update vx.deliveries d
       set state = 'pending', next_at = clock_timestamp()
      from unnest(calls, webhooks) as l(call_id, webhook_id) cross join lateral (
             select q.seq from vx.deliveries q
              where q.call_id = l.call_id and q.webhook_id = l.webhook_id and q.state = 'queued'
              order by q.seq limit 1) n
     where d.call_id = l.call_id and d.webhook_id = l.webhook_id and d.seq = n.seq and d.state = 'queued'
       and not exists (select from vx.deliveries a
                        where a.call_id = l.call_id and a.webhook_id = l.webhook_id and a.seq < n.seq and not a.replay
                          and (a.state = 'pending' or a.state = 'in_flight' and not a.parked));
    get diagnostics due = row_count;
  end if;
  -- what is sent again is pending from the start, and the next of its line may be claimed now
  return due + again::integer;
end $$;

grant execute on function vx.first_state(uuid, uuid) to vx_owner;
grant execute on function vx.claim_deliveries(uuid, integer, uuid[], integer[], integer, text[], float8) to vx_worker;
grant execute on function vx.settle(uuid, uuid[], uuid[], integer[], integer[], uuid[], timestamptz[], integer[], integer[],
  text[], text[], text[], timestamptz[], text[]) to vx_worker;

reset role;
