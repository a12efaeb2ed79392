set role vx_owner;

-- A page of a project's feed: the events behind (p_xid, p_call, p_seq) and below the horizon p_below, and how old they may be
-- (kept_xid). No row at all where this server has not seen the horizon (p_proof, where there are standbys); one of nulls where it
-- has, and there is no event. In one call, so that a reader costs one round trip; row-level security is in force.
-- `p_open`: those that are not durable yet, as far as this reader knows, are among them: everything that is complete. `upto`: what had
-- been committed lies below it.
create function vx.feed_page(p_project uuid, p_xid bigint, p_call uuid, p_seq integer, p_below bigint, p_types text[],
                             p_limit integer, p_proof uuid, p_metadata jsonb, p_only uuid, p_open boolean)
returns table (call_id uuid, seq integer, project_id uuid, id uuid, type text, epoch integer, region text, at timestamptz,
               data jsonb, content bytea, feed_xid bigint, wrapped bytea, kept_xid bigint, below bigint, upto bigint)
language plpgsql security invoker set search_path = vx, pg_temp as $$
#variable_conflict use_column
begin
  perform set_config('vx.project', p_project::text, true);
  if p_proof is not null and not exists (select from vx.horizon where writer = p_proof and xid >= p_below) then
    return;
  end if;
  if p_only is null then
    return query
    select e.*, k.feed_xid, pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
           pg_snapshot_xmax(pg_current_snapshot())::text::bigint from vx.kept k
      left join lateral (
        select v.call_id, v.seq, v.project_id, v.id, v.type, v.epoch, v.region, v.at, v.data, v.content, v.feed_xid,
               case when v.content is not null then (select c.wrapped from vx.calls c where c.id = v.call_id) end
          from vx.events v
         where v.project_id = p_project and (v.feed_xid, v.call_id, v.seq) > (p_xid, p_call, p_seq) and v.feed_xid < case when p_open then pg_snapshot_xmin(pg_current_snapshot())::text::bigint else p_below end
           and (p_types is null or v.type = any(p_types))
           and (p_metadata is null or exists (select from vx.calls c where c.id = v.call_id and c.metadata @> p_metadata))
         order by v.feed_xid, v.call_id, v.seq limit p_limit) e on true
     where k.log = 'events'
     order by e.feed_xid, e.call_id, e.seq;
  else
    -- of one call, by its key: there the order of the feed is the order of seq
    return query
    select e.*, k.feed_xid, pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
           pg_snapshot_xmax(pg_current_snapshot())::text::bigint from vx.kept k
      left join lateral (
        select v.call_id, v.seq, v.project_id, v.id, v.type, v.epoch, v.region, v.at, v.data, v.content, v.feed_xid,
               case when v.content is not null then (select c.wrapped from vx.calls c where c.id = v.call_id) end
          from vx.events v
         where v.project_id = p_project and v.call_id = p_only
           and (v.feed_xid, v.call_id, v.seq) > (p_xid, p_call, p_seq) and v.feed_xid < case when p_open then pg_snapshot_xmin(pg_current_snapshot())::text::bigint else p_below end
           and (p_types is null or v.type = any(p_types))
           and (p_metadata is null or exists (select from vx.calls c where c.id = v.call_id and c.metadata @> p_metadata))
         order by v.seq limit p_limit) e on true
     where k.log = 'events'
     order by e.seq;
  end if;
end $$;

grant execute on function vx.feed_page(uuid, bigint, uuid, integer, bigint, text[], integer, uuid, jsonb, uuid, boolean) to vx_api;

reset role;
