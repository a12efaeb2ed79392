set role vx_owner;

-- People who sign in to the console. They live in the home cell, as the fleet does; a project they belong to may lie in another.
-- No role but the one of operators' services reads these tables: what a project may know of its people, a service says.
create table vx.people (
  id             uuid primary key,
  email          text not null unique check (email = lower(email)),
  name           text not null default '',
  operator       boolean not null default false,    -- of the platform
  password_hash  text,                              -- argon2id; null: signs in by a provider or by a link
  issuer         text,                              -- who vouches for them by OpenID Connect, and as whom
  subject        text,
  created_at     timestamptz not null default clock_timestamp(),
  signed_in_at   timestamptz,
  unique (issuer, subject)
);

create table vx.memberships (
  person_id   uuid not null references vx.people on delete cascade,
  project_id  uuid not null,
  role        text not null,
  created_at  timestamptz not null default clock_timestamp(),
  primary key (person_id, project_id)
);
create index on vx.memberships (project_id);

-- Signed-in browsers. The cookie's secret is not here, only its SHA-256.
create table vx.sessions (
  secret_hash  bytea primary key,
  person_id    uuid not null references vx.people on delete cascade,
  created_at   timestamptz not null,
  seen_at      timestamptz not null,
  expires_at   timestamptz not null
);
create index on vx.sessions (person_id);
create index on vx.sessions (expires_at);

-- Links that sign in once, or set a password once.
create table vx.sign_in_links (
  secret_hash  bytea primary key,
  person_id    uuid not null references vx.people on delete cascade,
  purpose      text not null check (purpose in ('sign_in', 'password')),
  expires_at   timestamptz not null
);

-- Sign-ins that are at the provider now: what it has to bring back, and to which browser.
create table vx.sign_in_flows (
  state_hash    bytea primary key,
  browser_hash  bytea not null,
  nonce         text not null,
  verifier      text not null,
  return_to     text not null,
  expires_at    timestamptz not null
);

-- Tries with a password, of an account or of an address (its hash): so many within a while, and no more.
create table vx.sign_in_tries (
  subject  bytea not null,
  at       timestamptz not null
);
create index on vx.sign_in_tries (subject, at);

do $$
declare t text;
begin
  foreach t in array array['people', 'memberships', 'sessions', 'sign_in_links', 'sign_in_flows', 'sign_in_tries'] loop
    execute format('alter table vx.%I enable row level security', t);
    execute format('alter table vx.%I force row level security', t);
    execute format('create policy owner_all on vx.%I to vx_owner using (true) with check (true)', t);
    execute format('create policy admin_all on vx.%I to vx_admin using (true) with check (true)', t);
  end loop;
end $$;

grant select, insert, update, delete on vx.people, vx.memberships, vx.sessions to vx_admin;
grant select, insert, delete on vx.sign_in_links, vx.sign_in_flows, vx.sign_in_tries to vx_admin;

reset role;
