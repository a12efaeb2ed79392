set role vx_owner;

-- Asks one edge to let calls go that it owns at these epochs: for each a fresh set of grants, the move, and the command to the
-- edge, together or not at all. A call that has ended, has moved on, or is being moved already is left out of the answer.
-- One edge at a time: with two, this and the heartbeats could wait for each other.
--
-- `p_seen`: so many places of the call's new edge were given away when its move was decided (`vx.given_away`). Where it is more by
-- now, another has decided on the same places: the call is left out, and is decided upon again. Who moves calls to one edge comes
-- one after the other, so that of two who saw the same place one gets it.
create function vx.given_away(p_edge uuid, p_counted interval) returns integer
language sql stable set search_path = vx, pg_temp as $$
  select count(*)::integer from vx.moves
   where to_edge = p_edge and (outcome is null or outcome = 'moved' and done_at > clock_timestamp() - p_counted)
$$;

create function vx.move_calls(
  p_drain uuid, p_from uuid, p_force_at timestamptz, p_call uuid[], p_epoch integer[],
  p_edge_1 uuid[], p_incarnation_1 uuid[], p_edge_2 uuid[], p_incarnation_2 uuid[], p_edge_3 uuid[], p_incarnation_3 uuid[],
  p_why jsonb, p_seen integer[], p_counted interval)
returns table (call_id uuid, epoch integer)
language plpgsql security definer set search_path = vx, pg_temp as $$
#variable_conflict use_column
declare
  g record; c vx.calls; edges uuid[]; command bigint; taken uuid[];
begin
  perform pg_advisory_xact_lock(7423003, t.number) from (
    select distinct hashtext(e::text) as number from unnest(p_edge_1) e order by number) t;
  taken := array(select e from unnest(p_edge_1, p_seen) u(e, seen) group by e having vx.given_away(e, p_counted) > min(seen));
  for g in
    select * from unnest(p_call, p_epoch, p_edge_1, p_incarnation_1, p_edge_2, p_incarnation_2, p_edge_3, p_incarnation_3)
      as u(call_id, epoch, e1, i1, e2, i2, e3, i3) order by u.call_id
  loop
    select * into c from vx.calls k where k.id = g.call_id for no key update;
    continue when c.id is null or c.ended_at is not null or c.epoch <> g.epoch or c.edge_id <> p_from;
    continue when g.e1 = any(taken);
    edges := array_remove(array[g.e1, g.e2, g.e3], null);
    insert into vx.moves (call_id, epoch, drain_id, from_edge, to_edge, grants, force_at, why)
    values (c.id, c.epoch_granted + 1, p_drain, p_from, g.e1, cardinality(edges), p_force_at, p_why)
    on conflict do nothing;
    continue when not found;
    perform vx.grant_epochs(c.project_id, c.id, edges, array_remove(array[g.i1, g.i2, g.i3], null), c.grants_expire_at);
    update vx.edges e set desired_version = e.desired_version + 1 where e.id = p_from returning e.desired_version into command;
    insert into vx.desired (edge_id, version, kind, call_id, body)
    values (p_from, command, 'move', c.id, jsonb_build_object('epoch', (c.epoch_granted + 1)::text));
    call_id := c.id; epoch := c.epoch_granted + 1;
    return next;
  end loop;
end $$;

grant execute on function vx.move_calls(uuid, uuid, timestamptz, uuid[], integer[], uuid[], uuid[], uuid[], uuid[], uuid[], uuid[],
  jsonb, integer[], interval) to vx_admin;

reset role;
