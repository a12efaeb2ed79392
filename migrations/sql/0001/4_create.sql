set role vx_owner;

-- One create; `edges`, `incarnations`: who is granted an epoch, in order.
create type vx.given_create as (
  key text, body_hash bytea, call_id uuid, event_id uuid, request jsonb, placement jsonb, metadata jsonb, region text,
  edges uuid[], incarnations uuid[], webhook_id uuid, max_duration_s integer, attach_by timestamptz, expire_at timestamptz,
  data jsonb, hash bytea, created_at timestamptz, key_id uuid, wrapped bytea,
  subject bytea);

-- What bounds creates: of the project (`key_id` of zeros) or of one of its keys; null: nothing does. See vx.admit_creates.
create type vx.create_limit as (key_id uuid, concurrent integer, per_s integer);
-- `refused`: by which quota; null: it may be made. With what is used and what is left after it, where there are bounds.
create type vx.create_verdict as (
  key text, refused text, live integer, key_live integer, spare double precision, key_spare double precision);

-- A project's concurrent creates, in one round trip: idempotency record, call, first event and webhook deliveries.
-- Security invoker: the caller's row-level security holds in here. It names the project first; a set_config in a CTE
-- would come too late for the policies.
-- A plan that is made for the very arrays looks cheaper to the planner, which then plans again in every call: that costs more than
-- all the rest of a batch of four. (So in the other functions that take arrays.)
-- Answers one row per new call and one per key that was there before (`replayed`), with the record to answer from; and one per create
-- that a quota has no room for (`verdict`), of which nothing is kept.
create function vx.create_calls(
  p_project uuid, p_route text, p_now timestamptz, p_given vx.given_create[], p_limits vx.create_limit[])
returns table (key text, call_id uuid, body_hash bytea, replayed boolean, verdict vx.create_verdict, feed_xid bigint)
language plpgsql security invoker set search_path = vx, pg_temp set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  xid bigint := pg_current_xact_id()::text::bigint;
  made integer;
  verdicts vx.create_verdict[];
begin
  perform set_config('vx.project', p_project::text, true);
  if p_limits is not null then
    verdicts := vx.admit_creates(p_project, p_route, p_given, p_limits);
    return query select v.key, null::uuid, null::bytea, false, v, null::bigint from unnest(verdicts) v where v.refused is not null;
    p_given := array(select g from unnest(p_given) g
                      where g.key not in (select v.key from unnest(verdicts) v where v.refused is not null));
  end if;
  return query
  with given as (
    select * from unnest(p_given)
  ), claimed as (
    -- in key order, so that two instances that hold some of the same keys wait for each other in one direction only
    insert into vx.idempotency as i (project_id, route, key, body_hash, call_id, created_at)
    select p_project, p_route, g.key, g.body_hash, g.call_id, p_now from given g order by g.key
    on conflict do nothing
    returning i.key, i.call_id, i.body_hash
  ), fresh as (
    -- (`is true`: hashed, and not compared with each other one by one)
    select g.* from given g where (g.call_id in (select c.call_id from claimed c)) is true
  ), made_calls as (
    insert into vx.calls (id, project_id, state, epoch, epoch_granted, grant_edges, grant_incarnations, grants_expire_at,
                          attach_by, n, seq, feed_xid, region, edge_id, webhook_id, request, placement, metadata,
                          max_duration_s, created_at, key_id, wrapped, subject)
    select f.call_id, p_project, 'ringing', 1, cardinality(f.edges), f.edges, f.incarnations, f.expire_at,
           f.attach_by, 0, 1, xid, f.region, f.edges[1], f.webhook_id, f.request, f.placement, f.metadata, f.max_duration_s, f.created_at,
           f.key_id, f.wrapped, f.subject
      from fresh f
  ), made_labels as (
    insert into vx.call_labels (label, call_id, project_id)
    select vx.label_of(p_project, m.key, m.value), f.call_id, p_project
      from fresh f cross join lateral jsonb_each_text(f.metadata) m
  ), made_events as (
    insert into vx.events (call_id, seq, project_id, id, type, epoch, source, source_key, region, at, data, hash, feed_xid)
    select f.call_id, 1, p_project, f.event_id, 'call.created', 1, 'control', 'create', f.region, f.created_at, f.data, f.hash, xid
      from fresh f
  ), made_deliveries as (
    insert into vx.deliveries (call_id, webhook_id, seq, project_id, next_at, jurisdictions)
    select f.call_id, w.id, 1, p_project, p_now, vx.jurisdictions_of(f.request)
      from fresh f cross join lateral (
        select h.id, h.types, h.metadata from vx.webhooks h where h.project_id = p_project and h.scope = 'project' and h.takes
        union all
        select h.id, h.types, h.metadata from vx.webhooks h where h.id = f.webhook_id and h.scope = 'call' and h.takes) w
     where vx.wants(w.types, 'call.created') and (w.metadata is null or f.metadata @> w.metadata)
  )
  select c.key, c.call_id, c.body_hash, false, v, xid from claimed c left join unnest(verdicts) v on v.key = c.key;

  get diagnostics made = row_count;
  if made < cardinality(p_given) then
    -- What the winners have committed may not be durable yet, and a transaction that writes nothing waits for no standby:
    -- the message makes this one wait, so that the answer is true when it comes.
    perform pg_logical_emit_message(true, 'vx', '');
    -- a new statement sees what the winners have committed
    return query
    select i.key, i.call_id, i.body_hash, true, null::vx.create_verdict, null::bigint
      from vx.idempotency i
     where i.project_id = p_project and i.route = p_route and i.key in (select g.key from unnest(p_given) g)
       and i.call_id not in (select g.call_id from unnest(p_given) g);
  end if;
end $$;

grant execute on function vx.create_calls(uuid, text, timestamptz, vx.given_create[], vx.create_limit[])
  to vx_api;

reset role;
