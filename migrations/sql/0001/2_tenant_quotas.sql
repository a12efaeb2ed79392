set role vx_owner;

-- What the operator allows a project: `limits` as `app.projects.quotas_policy.Limits` writes them. No row: no bound of its own.
create table vx.quotas (
  project_id  uuid primary key references vx.projects,
  limits      jsonb not null default '{}',
  version     integer not null default 1,
  changed_at  timestamptz not null default clock_timestamp()
);
alter table vx.api_keys add column limits jsonb not null default '{}';  -- of this key alone, within the project's

-- What is left of the creates that a project, or one of its keys, may make in a second; `key_id` of zeros: the project's. Written by
-- whoever holds the project's lock for admission.
create table vx.create_tokens (
  project_id  uuid not null,
  key_id      uuid not null,
  spare       double precision not null,
  at          timestamptz not null,
  primary key (project_id, key_id)
) with (fillfactor = 50);

reset role;
