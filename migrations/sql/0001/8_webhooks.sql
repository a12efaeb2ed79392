set role vx_owner;

-- Of claims that were just made, how many each endpoint with limits of its own may get now: `p_count` stands for each endpoint's
-- among what is under way to it, on all instances. Its rate is a bucket that holds a second's worth.
create function vx.allow(p_webhook uuid[], p_count integer[]) returns table (webhook_id uuid, allowed integer)
language plpgsql volatile security invoker set search_path = vx, pg_temp as $$
#variable_conflict use_column
declare
  w record;
  now_ timestamptz;
  have double precision;
begin
  for w in
    select h.id, h.rate_per_s, h.concurrency, h.tokens, h.tokens_at, h.beside_until, t.k
      from unnest(p_webhook, p_count) t(id, k) join vx.webhooks h on h.id = t.id
     where h.rate_per_s is not null or h.concurrency is not null
     order by h.id for no key update of h
  loop
    webhook_id := w.id;
    allowed := w.k;
    if w.concurrency is not null then
      allowed := least(allowed, w.concurrency + w.k
        - (select count(*)::integer from vx.deliveries d where d.webhook_id = w.id and d.state = 'in_flight')
        - (w.beside_until > clock_timestamp())::integer);
    end if;
    if w.rate_per_s is not null then
      now_ := clock_timestamp();
      -- a clock that was set back counts as no time at all
      have := least(w.rate_per_s, greatest(w.tokens, 0) + w.rate_per_s
        * greatest(0, extract(epoch from now_ - greatest(w.tokens_at, now_ - interval '1 s'))));
      allowed := least(allowed, floor(have)::integer);
      update vx.webhooks h set tokens = have - greatest(allowed, 0), tokens_at = now_ where h.id = w.id;
    end if;
    allowed := greatest(allowed, 0);
    return next;
  end loop;
end $$;

-- One request that is no delivery, against the limits of the endpoint itself: `go`, `rate` or `busy`. p_hold_s: so long it takes one
-- of the concurrency (see release); null where its caller holds one already.
create function vx.admit(p_webhook uuid, p_hold_s double precision) returns text
language plpgsql volatile security invoker set search_path = vx, pg_temp as $$
declare
  w vx.webhooks;
  now_ timestamptz;
  have double precision;
begin
  select * into w from vx.webhooks h where h.id = p_webhook for no key update;
  now_ := clock_timestamp();
  if w.concurrency is not null and p_hold_s is not null and (w.beside_until > now_ or w.concurrency <=
       (select count(*) from vx.deliveries d where d.webhook_id = w.id and d.state = 'in_flight')) then
    return 'busy';
  end if;
  if w.rate_per_s is not null then
    have := least(w.rate_per_s, greatest(w.tokens, 0) + w.rate_per_s
      * greatest(0, extract(epoch from now_ - greatest(w.tokens_at, now_ - interval '1 s'))));
    if have < 1 then
      return 'rate';
    end if;
  end if;
  update vx.webhooks h
     set tokens = coalesce(have - 1, h.tokens), tokens_at = case when have is null then h.tokens_at else now_ end,
         beside_until = case when p_hold_s is null or h.concurrency is null then h.beside_until
                             else now_ + make_interval(secs => p_hold_s) end
   where h.id = w.id;
  return 'go';
end $$;

-- One event to one endpoint once more: `again` (it waits no longer), `waiting` (it is on its way anyway), `none` (no such event),
-- `gone` (its project keeps deliveries for a shorter time: vx.deliveries_gone).
create function vx.resend(p_project uuid, p_webhook uuid, p_call uuid, p_seq integer) returns text
language plpgsql volatile security invoker set search_path = vx, pg_temp as $$
declare
  d vx.deliveries;
begin
  perform set_config('vx.project', p_project::text, true);
  perform from vx.events e where e.call_id = p_call and e.seq = p_seq and e.project_id = p_project;
  if not found then
    return 'none';
  end if;
  if p_call <= vx.deliveries_gone(p_project) then
    return 'gone';
  end if;
  insert into vx.deliveries (call_id, webhook_id, seq, project_id, jurisdictions, replay, next_at)
  values (p_call, p_webhook, p_seq, p_project, vx.sent_from(p_call), true, clock_timestamp()) on conflict do nothing;
  if found then
    return 'again';
  end if;
  select * into d from vx.deliveries k where k.call_id = p_call and k.webhook_id = p_webhook and k.seq = p_seq for no key update;
  if d.state in ('delivered', 'failed') then
    update vx.deliveries k set state = 'pending', replay = true, parked = false, overtook = false, base = d.attempts,
           next_at = clock_timestamp(), first_at = null, done_at = null
     where k.call_id = p_call and k.webhook_id = p_webhook and k.seq = p_seq;
    return 'again';
  end if;
  if d.state in ('pending', 'parked') and d.next_at > clock_timestamp() then
    update vx.deliveries k set next_at = clock_timestamp()
     where k.call_id = p_call and k.webhook_id = p_webhook and k.seq = p_seq;
    return 'again';
  end if;
  return 'waiting';
end $$;

-- The next slice of the oldest replay that is due: at most `p_room` of its deliveries wait at a time, so that what is new has the
-- rest of the endpoint. Answers how many were queued; -1 where none is due. It looks at `p_calls` calls at most, in the order of
-- their creation; what is durable is all it can see once its own commit is.
create function vx.replay_slice(p_room integer, p_calls integer) returns integer
language plpgsql volatile security invoker set search_path = vx, pg_temp as $$
declare
  r vx.replays;
  w vx.webhooks;
  room integer;
  made integer;
  looked integer;
  last_call uuid;
  last_seq integer;
  calls uuid[];
  gone uuid;
begin
  select * into r from vx.replays k where k.state = 'running' and k.next_at <= clock_timestamp()
   order by k.next_at limit 1 for no key update skip locked;
  if not found then
    return -1;
  end if;
  select * into w from vx.webhooks k where k.id = r.webhook_id;
  if w.deleted_at is not null or not w.enabled then
    update vx.replays k set state = 'canceled', done_at = clock_timestamp() where k.id = r.id;
    return 0;
  end if;
  -- Those that are parked wait for hours: they take a little of the room each, so that some that nobody takes do not stop the rest.
  select p_room - count(*) filter (where not d.parked) - count(*) filter (where d.parked) / p_room into room from vx.deliveries d
   where d.webhook_id = r.webhook_id and d.replay and d.state in ('pending', 'parked', 'in_flight');
  if room <= p_room / 2 then
    update vx.replays k set next_at = clock_timestamp() + interval '0.1 seconds' where k.id = r.id;
    return 0;
  end if;
  gone := vx.deliveries_gone(r.project_id);
  select array_agg(c.id order by c.id) into calls
    from (select c.id from vx.calls c where c.project_id = r.project_id and c.id >= r.call_id
             and c.id < vx.first_uuid_at(r.until) and c.id > gone
           order by c.id limit p_calls) c;
  with wanted as (
    select e.call_id, e.seq from vx.events e left join vx.deliveries d
        on d.call_id = e.call_id and d.seq = e.seq and d.webhook_id = r.webhook_id
     where e.call_id = any(calls) and (e.call_id, e.seq) > (r.call_id, r.seq)
       and e.stored_at >= r.since and e.stored_at < r.until
       and vx.wants(w.types, e.type) and (w.metadata is null or vx.of_call(w.metadata, e.call_id))
       and (w.scope = 'project' or exists (select from vx.calls c where c.id = e.call_id and c.webhook_id = w.id))
       and (d.state is null and r.what <> 'failed' or d.state = 'failed' and r.what <> 'missing'
            or d.state = 'delivered' and r.what = 'all')
     order by e.call_id, e.seq limit room
  ), put as (
    insert into vx.deliveries as d (call_id, webhook_id, seq, project_id, jurisdictions, replay, next_at)
    select n.call_id, r.webhook_id, n.seq, r.project_id, vx.sent_from(n.call_id), true, clock_timestamp() from wanted n order by n.call_id, n.seq
    on conflict (call_id, webhook_id, seq) do update
       set state = 'pending', replay = true, parked = false, overtook = false, base = d.attempts,
           next_at = clock_timestamp(), first_at = null, done_at = null
     where d.state in ('delivered', 'failed')
    returning 1
  )
  select (select count(*) from put), (select count(*) from wanted),
         (select n.call_id from wanted n order by n.call_id desc limit 1),
         (select max(n.seq) from wanted n where n.call_id = (select m.call_id from wanted m order by m.call_id desc limit 1))
    into made, looked, last_call, last_seq;
  if looked < room then
    -- all of these calls has been looked at
    last_call := coalesce(calls[cardinality(calls)], r.call_id);
    last_seq := 2147483647;
  end if;
  update vx.replays k
     set call_id = last_call, seq = last_seq, queued = k.queued + made, next_at = clock_timestamp(),
         state = case when looked < room and coalesce(cardinality(calls), 0) < p_calls then 'done' else 'running' end,
         done_at = case when looked < room and coalesce(cardinality(calls), 0) < p_calls then clock_timestamp() end
   where k.id = r.id;
  return made;
end $$;

grant execute on function vx.allow(uuid[], integer[]), vx.admit(uuid, double precision) to vx_worker;
grant execute on function vx.resend(uuid, uuid, uuid, integer) to vx_api;
grant execute on function vx.replay_slice(integer, integer) to vx_worker;

reset role;
