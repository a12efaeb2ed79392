set role vx_owner;

-- What the list of a project's calls rests on (see docs/adr/0022): for each filter the calls that pass it stand in the order of the
-- list, so that a page costs as much as it shows, however rare or common what is asked for is.

-- The state of a call that has ended; null before. The state itself is in no index: every change of it would have to be written into
-- all of them, while an end is written into them anyway. The numbers are columns because under row-level security an index over an
-- expression is not looked at: the expression might tell of rows that the project does not see.
alter table vx.calls
  add column ended_as text generated always as (case when ended_at is not null then state end) stored,
  add column caller_from text generated always as (request #>> '{caller,from}') stored,
  add column caller_to text generated always as (request #>> '{caller,to}') stored;
-- What is included is looked at without the call itself, so that of two filters the one that finds less in the other costs little.
create index on vx.calls (project_id, ended_as, id desc) include (region, caller_from) where ended_at is not null;
create index on vx.calls (project_id, region, id desc);
create index on vx.calls (project_id, caller_to, id desc) where caller_to is not null;
create index on vx.calls (project_id, caller_from, id desc) include (region) where caller_from is not null;

-- A call's metadata, one row for each name: an index over the whole (GIN) finds calls, and not in their order. `label` is a hash; who
-- asks looks at the metadata of what was found.
create table vx.call_labels (
  label       bigint not null,
  call_id     uuid not null,
  project_id  uuid not null,
  primary key (label, call_id) include (project_id)
) partition by range (call_id);

-- Of one project's name and value.
create function vx.label_of(p_project uuid, p_name text, p_value text) returns bigint language sql immutable parallel safe as $$
  select ('x' || left(encode(sha256(convert_to(p_project::text || length(p_name) || ' ' || p_name || p_value, 'UTF8')), 'hex'), 16))
         ::bit(64)::bigint
$$;

alter table vx.call_labels enable row level security;
alter table vx.call_labels force row level security;
create policy owner_all on vx.call_labels to vx_owner using (true) with check (true);
create policy project_own on vx.call_labels to vx_api
  using (project_id = (select vx.current_project())) with check (project_id = (select vx.current_project()));

grant select, insert on vx.call_labels to vx_api;
grant execute on function vx.label_of(uuid, text, text) to vx_api, vx_owner;

reset role;
