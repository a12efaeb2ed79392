set role vx_owner;

-- Which cell this database is, once and for all: it is told when it is first opened, and refuses to be another from then on.
create table vx.cell (
  one           boolean primary key default true check (one),
  number        integer not null check (number between 0 and 4095),
  jurisdiction  text,                               -- null while the deployment names none
  begun_at      timestamptz not null default clock_timestamp()
);

-- What the database is; it remembers what it was not told before. A jurisdiction that was named stays.
create function vx.be_cell(p_number integer, p_jurisdiction text) returns table (number integer, jurisdiction text)
language plpgsql security definer set search_path = vx, pg_temp as $$
#variable_conflict use_column
begin
  if not exists (select from vx.cell) then
    insert into vx.cell (number, jurisdiction) values (p_number, p_jurisdiction) on conflict do nothing;
  elsif p_jurisdiction is not null and exists (select from vx.cell where number = p_number and jurisdiction is null) then
    update vx.cell set jurisdiction = p_jurisdiction where jurisdiction is null;
  end if;
  return query select number, jurisdiction from vx.cell;
end $$;

-- Commands that other cells have for edges go down the uplinks of the home cell, which alone counts their versions: the newest
-- of each cell's own numbers that was taken over.
create table vx.forwarded (
  cell     integer not null,
  edge_id  uuid not null references vx.edges,
  version  bigint not null,
  primary key (cell, edge_id)
);

-- Takes over one cell's commands to one edge, in their order and each once; how many were new.
create function vx.take_commands(
  p_cell integer, p_edge uuid, p_version bigint[], p_kind text[], p_call uuid[], p_body text[]) returns integer
language plpgsql security definer set search_path = vx, pg_temp as $$
declare
  done bigint; command bigint; g record; taken integer := 0;
begin
  insert into vx.forwarded (cell, edge_id, version) values (p_cell, p_edge, 0) on conflict do nothing;
  select f.version into done from vx.forwarded f where f.cell = p_cell and f.edge_id = p_edge for update;
  for g in
    select * from unnest(p_version, p_kind, p_call, p_body) as u(version, kind, call_id, body)
     where u.version > done order by u.version
  loop
    update vx.edges e set desired_version = e.desired_version + 1 where e.id = p_edge returning e.desired_version into command;
    insert into vx.desired (edge_id, version, kind, call_id, body)
    values (p_edge, command, g.kind, g.call_id, g.body::jsonb);
    done := g.version;
    taken := taken + 1;
  end loop;
  update vx.forwarded f set version = done where f.cell = p_cell and f.edge_id = p_edge and f.version < done;
  return taken;
end $$;

grant execute on function vx.be_cell(integer, text) to vx_api, vx_keys, vx_append, vx_worker, vx_admin;
grant execute on function vx.take_commands(integer, uuid, bigint[], text[], uuid[], text[]) to vx_admin;

reset role;
