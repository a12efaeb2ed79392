set role vx_owner;

-- Who did what, and who read what was said. Entries are chained per project and writer, hashed and signed by the instance that writes
-- them (see app/audit/chain.py); no role changes or removes one. The project of all zeros stands for the platform itself.
create table vx.audit_entries (
  project_id  uuid not null,
  writer      uuid not null,                        -- one life of an API instance
  n           bigint not null check (n > 0),
  id          uuid not null,                        -- a UUIDv7 of `at`
  at          timestamptz not null,
  actor_kind  text not null,
  actor_id    text not null,
  action      text not null,
  target      text not null,
  request_id  text not null,
  details     text,                                 -- address and summary; null once erased, and the digest stays
  salt        bytea,
  digest      bytea not null,
  prev        bytea not null,
  hash        bytea not null,
  kid         text not null,
  signature   bytea not null,
  primary key (project_id, writer, n)
);
create unique index on vx.audit_entries (project_id, id);
create index on vx.audit_entries (project_id, action, id);
create index on vx.audit_entries (project_id, target, id);
create index on vx.audit_entries (project_id, actor_id, id);
create index on vx.audit_entries (id);

-- Signed statements up to where the chains of a project have come, one a minute while anything happens; and, when old entries are
-- dropped, up to where they are gone. Chained themselves.
create table vx.audit_anchors (
  project_id  uuid not null,
  n           bigint not null check (n > 0),
  body        text not null,
  hash        bytea not null,
  kid         text not null,
  signature   bytea not null,
  stored_at   timestamptz not null default clock_timestamp(),
  primary key (project_id, n)
);
create index on vx.audit_anchors (stored_at);

-- The keys that sign, wrapped by the master key: whoever owns the database alone has none of them.
create table vx.audit_keys (
  kid         text primary key,
  wrapped     bytea not null,
  created_at  timestamptz not null default now()
);

do $$
declare t text;
begin
  foreach t in array array['audit_entries', 'audit_anchors'] loop
    execute format('alter table vx.%I enable row level security', t);
    execute format('alter table vx.%I force row level security', t);
    execute format('create policy owner_all on vx.%I to vx_owner using (true) with check (true)', t);
    execute format('create policy project_own on vx.%I to vx_api using (project_id = (select vx.current_project())) with check (project_id = (select vx.current_project()))', t);
    execute format('create policy admin_all on vx.%I to vx_admin using (true) with check (true)', t);
    execute format('create policy worker_all on vx.%I to vx_worker using (true) with check (true)', t);
  end loop;
end $$;

grant select, insert on vx.audit_entries to vx_api, vx_admin, vx_worker;
grant select on vx.audit_anchors to vx_api, vx_admin;
grant select, insert on vx.audit_anchors to vx_worker;
grant select, insert, update (wrapped) on vx.audit_keys to vx_admin;

-- Where a chain has come to, for whoever writes its next entry; until the end of the transaction nobody else does. A statement of
-- its own after the lock: what was committed while it was waited for is seen.
create function vx.audit_head(p_project uuid, p_writer uuid) returns table (n bigint, hash bytea)
language plpgsql volatile security invoker set search_path = vx, pg_temp as $$
begin
  perform pg_advisory_xact_lock(hashtextextended(p_project::text || p_writer::text, 7423019));
  return query select e.n, e.hash from vx.audit_entries e
                where e.project_id = p_project and e.writer = p_writer order by e.n desc limit 1;
end $$;

-- Takes away what may have to be erased, and nothing else. The writer of the erasure writes an entry that names what was taken:
-- without it the log does not verify.
create function vx.audit_erase(p_project uuid, p_writers uuid[], p_ns bigint[]) returns integer
language plpgsql security definer set search_path = vx, pg_temp as $$
declare erased integer;
begin
  update vx.audit_entries e set details = null, salt = null
    from unnest(p_writers, p_ns) as u(writer, n)
   where e.project_id = p_project and e.writer = u.writer and e.n = u.n and e.details is not null and e.action <> 'audit.details_erased';
  get diagnostics erased = row_count;
  return erased;
end $$;

-- Drops the beginning of chains, up to the entries that are named, and the anchors up to one; in their place stays the signed anchor
-- that says so. A false signature is not noticed here: it is when the log is verified. False: another anchor came first.
create function vx.audit_drop(p_project uuid, p_writers uuid[], p_ns bigint[], p_anchors bigint,
                              p_n bigint, p_body text, p_hash bytea, p_kid text, p_signature bytea) returns boolean
language plpgsql security definer set search_path = vx, pg_temp as $$
begin
  insert into vx.audit_anchors (project_id, n, body, hash, kid, signature)
  values (p_project, p_n, p_body, p_hash, p_kid, p_signature) on conflict do nothing;
  if not found then
    return false;
  end if;
  delete from vx.audit_entries e using unnest(p_writers, p_ns) as u(writer, n)
   where e.project_id = p_project and e.writer = u.writer and e.n <= u.n;
  delete from vx.audit_anchors a where a.project_id = p_project and a.n <= p_anchors and a.n < p_n;
  return true;
end $$;

grant execute on function vx.audit_head(uuid, uuid) to vx_api, vx_admin, vx_worker;
grant execute on function vx.audit_erase(uuid, uuid[], bigint[]) to vx_admin, vx_worker;
grant execute on function vx.audit_drop(uuid, uuid[], bigint[], bigint, bigint, text, bytea, text, bytea) to vx_worker;

reset role;
