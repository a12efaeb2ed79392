set role vx_owner;

-- A page of a project's feed: the events behind (p_xid, p_call, p_seq) and below the horizon p_below, and how old they may be
-- (kept_xid). No row at all where this server has not seen the horizon (p_proof, where there are standbys); one of nulls where it
-- has, and there is no event. In one call, so that a reader costs one round trip; row-level security is in force.
create function vx.feed_page(p_project uuid, p_xid bigint, p_call uuid, p_seq integer, p_below bigint, p_types text[],
                             p_limit integer, p_proof uuid, p_metadata jsonb, p_only uuid)
returns table (call_id uuid, seq integer, project_id uuid, id uuid, type text, epoch integer, region text, at timestamptz,
               data jsonb, content bytea, content_key uuid, feed_xid bigint, kept_xid bigint)
language plpgsql security invoker set search_path = vx, pg_temp as $$
#variable_conflict use_column
begin
  perform set_config('vx.project', p_project::text, true);
  if p_proof is not null and not exists (select from vx.horizon where writer = p_proof and xid >= p_below) then
    return;
  end if;
  if p_only is null then
    return query
    select e.*, k.feed_xid from vx.kept k
      left join lateral (
        select v.call_id, v.seq, v.project_id, v.id, v.type, v.epoch, v.region, v.at, v.data, v.content, v.content_key, v.feed_xid
          from vx.events v
         where v.project_id = p_project and (v.feed_xid, v.call_id, v.seq) > (p_xid, p_call, p_seq) and v.feed_xid < p_below
           and (p_types is null or v.type = any(p_types))
           and (p_metadata is null or exists (select from vx.calls c where c.id = v.call_id and c.metadata @> p_metadata))
         order by v.feed_xid, v.call_id, v.seq limit p_limit) e on true
     where k.log = 'events'
     order by e.feed_xid, e.call_id, e.seq;
  else
    -- of one call, by its key: there the order of the feed is the order of seq
    return query
    select e.*, k.feed_xid from vx.kept k
      left join lateral (
        select v.call_id, v.seq, v.project_id, v.id, v.type, v.epoch, v.region, v.at, v.data, v.content, v.content_key, v.feed_xid
          from vx.events v
         where v.project_id = p_project and v.call_id = p_only
           and (v.feed_xid, v.call_id, v.seq) > (p_xid, p_call, p_seq) and v.feed_xid < p_below
           and (p_types is null or v.type = any(p_types))
           and (p_metadata is null or exists (select from vx.calls c where c.id = v.call_id and c.metadata @> p_metadata))
         order by v.seq limit p_limit) e on true
     where k.log = 'events'
     order by e.seq;
  end if;
end $$;

grant execute on function vx.feed_page(uuid, bigint, uuid, integer, bigint, text[], integer, uuid, jsonb, uuid) to vx_api;

reset role;
