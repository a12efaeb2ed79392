set role vx_owner;

alter table vx.quotas enable row level security;
alter table vx.quotas force row level security;
create policy owner_all on vx.quotas to vx_owner using (true) with check (true);
create policy project_own on vx.quotas to vx_api using (project_id = (select vx.current_project()));
create policy admin_all on vx.quotas to vx_admin using (true) with check (true);
create policy worker_all on vx.quotas to vx_worker using (true);
alter table vx.create_tokens enable row level security;
alter table vx.create_tokens force row level security;
create policy owner_all on vx.create_tokens to vx_owner using (true) with check (true);
create policy project_own on vx.create_tokens to vx_api
  using (project_id = (select vx.current_project())) with check (project_id = (select vx.current_project()));

-- The same where the project alone has limits, which is nearly always: as many as there is room for, in their order.
create function vx.admit_to_project(
  p_project uuid, p_given vx.given_create[], l vx.create_limit, known text[], moment timestamptz) returns vx.create_verdict[]
language plpgsql security invoker set search_path = vx, pg_temp as $$
declare
  zero constant uuid := '00000000-0000-0000-0000-000000000000';
  live integer; free integer; spare double precision; room integer; found vx.create_verdict[];
begin
  if l.concurrent is not null then
    select count(*) into live from vx.calls c where c.project_id = p_project and c.ended_at is null;
    free := greatest(l.concurrent - live, 0);
  end if;
  if l.per_s is not null then
    select least(l.per_s::double precision, t.spare + greatest(extract(epoch from moment - t.at), 0) * l.per_s) into spare
      from vx.create_tokens t where t.project_id = p_project and t.key_id = zero;
    spare := coalesce(spare, l.per_s);
  end if;
  room := least(free, floor(spare)::integer);  -- of two, what is null counts for nothing
  found := array(
    select row(g.key, case when g.i <= room then null when room = free then 'project.concurrent_calls' else 'project.creates_per_s' end,
               live + least(g.i, room), 0, spare - least(g.i, room), null)::vx.create_verdict
      from (select u.key, (row_number() over (order by u.i))::integer as i
              from (select x.key, row_number() over () as i from unnest(p_given) x) u where u.key <> all(known)) g);
  if spare is not null then
    insert into vx.create_tokens as t (project_id, key_id, spare, at)
    values (p_project, zero, spare - least(room, cardinality(found)), moment)
    on conflict (project_id, key_id) do update set spare = excluded.spare, at = excluded.at;
  end if;
  return found;
end $$;

-- Whether creates may be made: for each, in the order given, the name of the first quota that has no room for it; null: it may. A key
-- that was used before is not looked at: its create is answered from the record, and counts for nothing.
--   1. calls at once, of the key, then of the project: those that have not ended, and those that were admitted before it here
--   2. creates per second, of the key, then of the project: a bucket that holds a second's worth and fills evenly
-- Those of one project are asked one after another, whatever instance asks: the lock is held until the creates are committed, so
-- the next one counts them. Neither bound is ever passed, then. Time is the database's own.
create function vx.admit_creates(
  p_project uuid, p_route text, p_given vx.given_create[], p_limits vx.create_limit[]) returns vx.create_verdict[]
language plpgsql security invoker set search_path = vx, pg_temp as $$
declare
  zero constant uuid := '00000000-0000-0000-0000-000000000000';
  moment timestamptz; known text[]; live jsonb; spare jsonb; names text[] := array['key', 'project'];
  g vx.given_create; l vx.create_limit; whose uuid[]; why text; found vx.create_verdict[] := '{}';
begin
  perform pg_advisory_xact_lock(7423100, hashtext(p_project::text));
  moment := clock_timestamp();
  known := array(select i.key from vx.idempotency i
                  where i.project_id = p_project and i.route = p_route and i.key in (select u.key from unnest(p_given) u));
  if cardinality(p_limits) = 1 and p_limits[1].key_id = zero then
    return vx.admit_to_project(p_project, p_given, p_limits[1], known, moment);
  end if;
  if exists (select from unnest(p_limits) u where u.concurrent is not null) then
    select coalesce(jsonb_object_agg(c.key_id, c.n), '{}') || jsonb_build_object(zero, coalesce(sum(c.n), 0)) into live
      from (select coalesce(k.key_id, '11111111-1111-1111-1111-111111111111') as key_id, count(*) as n from vx.calls k
             where k.project_id = p_project and k.ended_at is null group by 1) c;
  end if;
  select coalesce(jsonb_object_agg(u.key_id, least(u.per_s::double precision,
           coalesce(t.spare + greatest(extract(epoch from moment - t.at), 0) * u.per_s, u.per_s))), '{}') into spare
    from unnest(p_limits) u left join vx.create_tokens t on t.project_id = p_project and t.key_id = u.key_id
   where u.per_s is not null;
  foreach g in array p_given loop
    continue when g.key = any(known);
    whose := array[g.key_id, zero];
    why := null;
    for i in 1 .. 2 loop
      select * into l from unnest(p_limits) u where u.key_id = whose[i];
      if why is null and l.concurrent is not null and coalesce((live ->> whose[i]::text)::integer, 0) >= l.concurrent then
        why := names[i] || '.concurrent_calls';
      end if;
    end loop;
    for i in 1 .. 2 loop
      if why is null and (spare ->> whose[i]::text)::double precision < 1 then
        why := names[i] || '.creates_per_s';
      end if;
    end loop;
    if why is null then
      for i in 1 .. 2 loop
        live := live || jsonb_build_object(whose[i], coalesce((live ->> whose[i]::text)::integer, 0) + 1);
        if spare ? whose[i]::text then
          spare := spare || jsonb_build_object(whose[i], (spare ->> whose[i]::text)::double precision - 1);
        end if;
      end loop;
    end if;
    found := found || row(g.key, why, (live ->> zero::text)::integer, coalesce((live ->> g.key_id::text)::integer, 0),
                          (spare ->> zero::text)::double precision, (spare ->> g.key_id::text)::double precision)::vx.create_verdict;
  end loop;
  insert into vx.create_tokens as t (project_id, key_id, spare, at)
  select p_project, s.key::uuid, s.value::double precision, moment from jsonb_each_text(spare) s
  on conflict (project_id, key_id) do update set spare = excluded.spare, at = excluded.at;
  return found;
end $$;

-- How much of its quotas a project uses, and one of its keys.
create function vx.quota_use(p_project uuid, p_key uuid)
returns table (live integer, key_live integer, spare double precision, spare_at timestamptz, key_spare double precision,
               key_spare_at timestamptz, moment timestamptz, backlog integer)
language plpgsql security invoker set search_path = vx, pg_temp as $$
#variable_conflict use_column
begin
  perform set_config('vx.project', p_project::text, true);
  return query
  select c.live, c.key_live, p.spare, p.at, k.spare, k.at, clock_timestamp(),
         (select coalesce(max(w.waiting), 0) from vx.webhooks w where w.project_id = p_project and w.deleted_at is null)
    from (select count(*)::integer as live, (count(*) filter (where key_id = p_key))::integer as key_live
            from vx.calls where project_id = p_project and ended_at is null) c
    left join vx.create_tokens p on p.project_id = p_project and p.key_id = '00000000-0000-0000-0000-000000000000'
    left join vx.create_tokens k on k.project_id = p_project and k.key_id = p_key;
end $$;

grant select on vx.quotas to vx_api, vx_worker;
grant select, insert, update on vx.quotas to vx_admin;
grant select, insert, update on vx.create_tokens to vx_api;
grant execute on function vx.admit_creates(uuid, text, vx.given_create[], vx.create_limit[]), vx.quota_use(uuid, uuid),
  vx.admit_to_project(uuid, vx.given_create[], vx.create_limit, text[], timestamptz) to vx_api;

reset role;
