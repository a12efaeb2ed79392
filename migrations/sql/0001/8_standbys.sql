set role vx_owner;

-- Fresh standbys for calls of one owner, and the command to hand its caller the ticket, together or not at all. A call that has
-- ended, has other grants by now, has moved on, or is being moved (which brings its own) is left out of the answer.
-- One edge at a time: with two, this and the heartbeats could wait for each other.
create function vx.renew_standbys(
  p_owner uuid, p_call uuid[], p_epoch integer[], p_granted integer[],
  p_edge_1 uuid[], p_incarnation_1 uuid[], p_edge_2 uuid[], p_incarnation_2 uuid[])
returns table (call_id uuid, epoch integer)
language plpgsql security definer set search_path = vx, pg_temp as $$
#variable_conflict use_column
declare
  g record; c vx.calls; edges uuid[]; command bigint;
begin
  for g in
    select * from unnest(p_call, p_epoch, p_granted, p_edge_1, p_incarnation_1, p_edge_2, p_incarnation_2)
      as u(call_id, epoch, granted, e1, i1, e2, i2) order by u.call_id
  loop
    select * into c from vx.calls k where k.id = g.call_id for no key update;
    continue when c.id is null or c.ended_at is not null or c.edge_id <> p_owner or c.epoch <> g.epoch
      or c.epoch_granted <> g.granted or c.epoch_granted >= 900
      or exists (select from vx.moves m where m.call_id = c.id and m.outcome is null);
    edges := array_remove(array[g.e1, g.e2], null);
    perform vx.grant_epochs(c.project_id, c.id, edges, array_remove(array[g.i1, g.i2], null), c.grants_expire_at);
    update vx.edges e set desired_version = e.desired_version + 1 where e.id = p_owner returning e.desired_version into command;
    insert into vx.desired (edge_id, version, kind, call_id, body)
    values (p_owner, command, 'ticket', c.id,
            jsonb_build_object('epoch', (c.epoch_granted + 1)::text, 'grants', cardinality(edges)::text));
    call_id := c.id; epoch := c.epoch_granted + 1;
    return next;
  end loop;
end $$;

grant execute on function vx.renew_standbys(uuid, uuid[], integer[], integer[], uuid[], uuid[], uuid[], uuid[]) to vx_worker;

reset role;
