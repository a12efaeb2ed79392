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

-- What came of attempts, and the next of their lines: how many are due now. A claim that another worker has taken over meanwhile is left alone.
-- The arrays are in the order of (call, endpoint, seq), so that two that settle the same rows cannot wait for each other.
create function vx.settle(
  p_worker uuid, p_call uuid[], p_webhook uuid[], p_seq integer[], p_attempt integer[], p_project uuid[], p_at timestamptz[],
  p_duration_ms integer[], p_status integer[], p_error text[], p_excerpt text[], p_state text[], p_next_at timestamptz[])
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
  insert into vx.delivery_attempts (call_id, webhook_id, seq, attempt, project_id, at, duration_ms, status, error, excerpt)
  select * from unnest(p_call, p_webhook, p_seq, p_attempt, p_project, p_at, p_duration_ms, p_status, p_error, p_excerpt)
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
grant execute on function vx.settle(uuid, uuid[], uuid[], integer[], integer[], uuid[], timestamptz[], integer[], integer[],
  text[], text[], text[], timestamptz[]) to vx_worker;

reset role;
