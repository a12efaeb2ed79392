set role vx_owner;

-- Whether no edge can own the call, now or later, of those that were granted an epoch:
--   1. every grant has expired (with the ticket's clock skew and a while for events on their way)
--   2. every granted edge has restarted since, and refuses the grants of before, or
--      has denied that it holds the call, and refuses those grants from then on
-- Silence is neither.
create function vx.nobody_holds(c vx.calls, p_grace interval) returns boolean
language sql stable security definer set search_path = vx, pg_temp as $$
  select c.grants_expire_at < now() - p_grace or not exists (
    select from unnest(c.grant_edges, c.grant_incarnations) with ordinality g(edge, incarnation, epoch)
      join vx.edges e on e.id = g.edge and e.incarnation = g.incarnation
     where not exists (select from vx.denials d
                        where d.call_id = c.id and d.edge_id = g.edge and d.incarnation = g.incarnation
                          and d.epoch >= g.epoch and d.answer = 'denied'))
$$;

-- The final event of a call that nobody holds. Asked again under the call's lock, so that a ticket which was granted meanwhile
-- keeps the call alive (`held`). Else what `append_control` answers.
create function vx.end_unheld(
  p_call uuid, p_grace interval, p_event uuid, p_at timestamptz, p_data jsonb, p_hash bytea)
returns table (status text, seq integer, feed_xid bigint)
language plpgsql security definer set search_path = vx, pg_temp as $$
declare c vx.calls;
begin
  select * into c from vx.calls k where k.id = p_call for no key update;
  if c.id is null or c.ended_at is not null then
    return query select 'ended', coalesce(c.seq, 0), null::bigint; return;
  end if;
  if not vx.nobody_holds(c, p_grace) then
    return query select 'held', c.seq, null::bigint; return;
  end if;
  return query select * from vx.append_control(
    c.project_id, p_call, 'control', 'reconcile', p_event, 'call.ended', p_at, p_data, null, p_hash);
end $$;

grant execute on function vx.nobody_holds(vx.calls, interval) to vx_owner, vx_worker;
grant execute on function vx.end_unheld(uuid, interval, uuid, timestamptz, jsonb, bytea) to vx_worker;

reset role;
