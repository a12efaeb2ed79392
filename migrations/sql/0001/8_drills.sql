set role vx_owner;

-- Drills: the loss of an edge or a region, rehearsed for some of its calls. At most one in the fleet has not ended.
create table vx.drills (
  id             uuid primary key,
  region         text not null references vx.regions,
  edge_id        uuid references vx.edges,          -- null: the whole region
  request        jsonb not null,                    -- as it was asked for: share, limits, bounds
  total          integer not null,                  -- so many calls at most
  wave           integer not null default 0,        -- the one that was begun last
  started_at     timestamptz not null default clock_timestamp(),
  deadline_at    timestamptz not null,
  claimed_until  timestamptz not null default '-infinity',  -- by the instance that looks after it now
  halt           text check (halt in ('failed', 'stopped', 'cancelled')),  -- no more calls are cut; those that were are followed
  reason         text not null default '',
  ended_at       timestamptz,
  verdict        text check (verdict in ('passed', 'failed', 'stopped', 'cancelled'))
);
create unique index on vx.drills ((true)) where ended_at is null;
create index on vx.drills (started_at desc);

-- The calls of a drill: chosen, cut by their edge, then followed until what became of them is known.
create table vx.drill_calls (
  drill_id    uuid not null references vx.drills on delete cascade,
  call_id     uuid not null,
  wave        integer not null,
  region      text not null,                        -- what it is cut from
  edge_id     uuid not null,
  epoch       integer not null,
  chosen_at   timestamptz not null default clock_timestamp(),
  asked_at    timestamptz,                          -- when its edge was told last, and how often
  asks        integer not null default 0,
  cut_at      timestamptz,                          -- by the edge's clock
  told_at     timestamptz,                          -- when the edge's word came, by the database's clock
  acked_seq   integer,
  unacked     jsonb,                                -- [[epoch, n], …]: written, not acknowledged at the cut
  noted       boolean not null default false,       -- the call's own log says that a drill did it
  outcome     text check (outcome in ('recovered', 'ended', 'lost', 'untouched')),
  result      jsonb,
  settled_at  timestamptz,
  primary key (drill_id, call_id)
);
create index on vx.drill_calls (chosen_at);

grant select, insert, update on vx.drills, vx.drill_calls to vx_admin;
grant select, update on vx.drills, vx.drill_calls to vx_worker;
grant delete on vx.drills to vx_worker;

reset role;
