set role vx_owner;

-- Secrets that a rotation has replaced. Each works until its time, and never longer than its key.
create table vx.key_secrets (
  secret_hash  bytea primary key,                   -- SHA-256 of the whole secret
  key_id       uuid not null references vx.api_keys,
  project_id   uuid not null references vx.projects,
  hint         text not null,
  valid_until  timestamptz not null
);
create index on vx.key_secrets (key_id, valid_until);
alter table vx.key_secrets enable row level security;
alter table vx.key_secrets force row level security;
create policy owner_all on vx.key_secrets to vx_owner using (true) with check (true);
create policy project_own on vx.key_secrets to vx_api
  using (project_id = (select vx.current_project())) with check (project_id = (select vx.current_project()));
grant select, insert, update, delete on vx.key_secrets to vx_api;

-- The key look-up: one row for one hash, so that a leak of this role lists nothing. `expires_at`: of this secret; `replaced`: by
-- another of the same key.
create function vx.find_key(p_hash bytea)
returns table (id uuid, project_id uuid, mode text, role text, scopes text[], expires_at timestamptz, revoked_at timestamptz,
               settings jsonb, allow_from text[], replaced boolean, quotas jsonb, limits jsonb)
language sql stable security definer set search_path = vx, pg_temp as $$
  select k.id, k.project_id, p.mode, k.role, k.scopes, least(k.expires_at, s.valid_until), k.revoked_at, p.settings, k.allow_from,
         s.valid_until is not null and (k.expires_at is null or s.valid_until < k.expires_at), q.limits, k.limits
    from (select a.id, null::timestamptz as valid_until from vx.api_keys a where a.secret_hash = p_hash
          union all
          select o.key_id, o.valid_until from vx.key_secrets o where o.secret_hash = p_hash) s
    join vx.api_keys k on k.id = s.id join vx.projects p on p.id = k.project_id
    left join vx.quotas q on q.project_id = k.project_id
$$;

create function vx.touch_keys(p_keys uuid[], p_at timestamptz) returns void
language sql security definer set search_path = vx, pg_temp as $$
  update vx.api_keys set last_used_at = p_at where id = any(p_keys) and (last_used_at is null or last_used_at < p_at)
$$;

revoke execute on function vx.find_key(bytea), vx.touch_keys(uuid[], timestamptz) from public;
grant execute on function vx.find_key(bytea), vx.touch_keys(uuid[], timestamptz) to vx_keys;

reset role;
