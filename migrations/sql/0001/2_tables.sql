set role vx_owner;

-- ---------------------------------------------------------------------------------------------- tenants and keys

create table vx.projects (
  id          uuid primary key,
  name        text not null,
  mode        text not null check (mode in ('live', 'test')),
  settings    jsonb not null default '{}',
  version     integer not null default 1,
  created_at  timestamptz not null default now()
);

create table vx.api_keys (
  id            uuid primary key,
  project_id    uuid not null references vx.projects,
  name          text not null,
  role          text not null,
  scopes        text[] not null default '{}',
  secret_hash   bytea not null unique,              -- SHA-256 of the whole secret
  hint          text not null,                      -- the last four characters, to recognise it by
  created_at    timestamptz not null default now(),
  expires_at    timestamptz,
  revoked_at    timestamptz,
  last_used_at  timestamptz,
  rotated_at    timestamptz,
  allow_from    text[] not null default '{}'        -- addresses and networks that it may be used from; none: any
);
create index on vx.api_keys (project_id, id);

-- A project's key, wrapped by the key provider's master key. It wraps the keys of its calls (vx.calls.wrapped), under which their
-- content is stored.
create table vx.content_keys (
  id          uuid primary key,
  project_id  uuid not null references vx.projects,
  wrapped     bytea,                                -- null once destroyed
  created_at  timestamptz not null default now()
);
create index on vx.content_keys (project_id, id);

-- What a project has asked of the API lately, for its developers to look at. A partition a day, none of them written ahead: they are
-- emptied by a crash and by a failover, and cost the log of the database nothing.
create table vx.requests (
  id          uuid not null,                        -- a UUIDv7: its order is theirs
  project_id  uuid not null,
  at          timestamptz not null,
  request_id  text not null,
  method      text not null,
  route       text not null,
  status      smallint not null,
  ms          integer not null,
  key_id      uuid not null,
  left_out    integer not null,                     -- so many of the project's were not kept before this one
  primary key (id)
) partition by range (id);
create index on vx.requests (project_id, id);
create index on vx.requests (project_id, id) where status >= 400;

create table vx.idempotency (
  project_id  uuid not null,
  route       text not null,
  key         text not null,
  body_hash   bytea not null,
  call_id     uuid not null,
  created_at  timestamptz not null default now(),
  primary key (project_id, route, key)
);
create index on vx.idempotency (created_at);

-- --------------------------------------------------------------------------------------------------------- fleet

create table vx.regions (
  id            text primary key check (id ~ '^[a-z][a-z0-9-]{1,30}$'),
  name          text not null default '',
  jurisdiction  text not null,
  latitude      double precision not null default 0,
  longitude     double precision not null default 0,
  admin_state   text not null default 'active' check (admin_state in ('active', 'cordoned', 'draining')),
  weight       real not null default 1 check (weight between 0 and 1),      -- the share of new calls it takes part in
  proximity    text not null default '',            -- regions with the same word are as near as each other
  price_ms     real not null default 0 check (price_ms between 0 and 1000), -- so much nearer it has to be
  version       integer not null default 1,
  enrol_version integer not null default 0,         -- of its enrolment tokens: those of another are void
  created_at    timestamptz not null default now()
);

create table vx.edges (
  id               uuid primary key,
  region           text not null references vx.regions,
  name             text not null,
  incarnation      uuid not null,
  public_key       bytea not null,
  media_url        text not null,
  http_url         text not null,
  webrtc           boolean not null default false,  -- callers over WebRTC are taken there
  capacity_calls   integer not null,
  admin_state      text not null default 'active' check (admin_state in ('active', 'cordoned', 'draining')),
  generation       bigint not null default 0,       -- of its uplink: an older one's word is void
  desired_version  bigint not null default 0,
  done_version     bigint not null default 0,
  calls            integer not null default 0,
  load             jsonb not null default '{}',
  software         text not null default '',
  stopped          uuid,                            -- the incarnation that said it stops: nobody waits for its heartbeats
  revoked_at       timestamptz,                     -- cut off for good by an operator; its name has its id behind it
  key_since        timestamptz not null default now(),  -- since when public_key is its key
  key_asked_at     timestamptz,                     -- an operator wants another key, and none has come yet
  key_overlap_s    integer,                         -- and so long the one before is to hold then; null: as usual
  key_before_until timestamptz,                     -- until when one before holds, where one does
  key_misuses      integer not null default 0,      -- tokens that came signed with a key that holds no more
  key_misused_at   timestamptz,
  version          integer not null default 1,
  registered_at    timestamptz not null default now(),
  seen_at          timestamptz not null default now(),
  unique (region, name)
);

-- Keys that an edge had before the present one. A key stands here for ever: none comes back, and who shows one is known.
create table vx.edge_keys (
  public_key   bytea primary key,
  edge_id      uuid not null references vx.edges,
  since        timestamptz not null,
  retired_at   timestamptz not null default clock_timestamp(),
  valid_until  timestamptz not null
);
create index edge_keys_edge on vx.edge_keys (edge_id, retired_at desc);

-- What the detector holds of edges and regions (see docs/explanation/detector.md). No row: healthy, and never anything else.
create table vx.health (
  kind      text not null check (kind in ('edge', 'region')),
  subject   text not null,                          -- the edge's uuid, the region's id
  verdict   text not null check (verdict in ('healthy', 'suspect', 'down', 'probation')),
  action    text not null default 'none' check (action in ('none', 'quarantine', 'evacuate')),
  reason    text not null default 'good',
  flaps     integer not null default 0,
  stumbles  integer not null default 0,
  owed      boolean not null default false,         -- has been down, and has not served its probation
  version   bigint not null,                        -- counts transitions: who writes the next one names it
  since     timestamptz not null default clock_timestamp(),
  primary key (kind, subject)
);

-- The newest report of each edge on the others: probes, and callers that left them.
create table vx.observations (
  edge_id  uuid primary key references vx.edges,
  at       timestamptz not null,
  lag_ms   double precision not null,
  seen     jsonb not null
) with (fillfactor = 50);

-- Round trips between networks and regions as edges witnessed them, one value for each hour (see app/placement/history.py). A network
-- is a /24, a /48, an autonomous system or a metro, as a number; no address stands here.
create table vx.round_trips (
  window_n  integer not null,                       -- hours since 1970
  network   bigint not null,
  region    text not null,
  rtt_ms    real not null,
  reports   integer not null default 0,
  at        timestamptz not null default clock_timestamp(),
  primary key (window_n, network, region)
) with (fillfactor = 70);
create index on vx.round_trips (at);

-- Round trips from a region to others (mesh) and to customers' backends, the newest of each.
create table vx.legs (
  region     text not null references vx.regions,
  kind       text not null check (kind in ('mesh', 'backend')),
  target     text not null,
  rtt_ms     real not null,
  jitter_ms  real not null,
  loss       real not null,
  at         timestamptz not null default clock_timestamp(),
  primary key (region, kind, target)
) with (fillfactor = 50);
create index on vx.legs (at);

-- What a project says its callers have measured: for its own calls, for ten minutes.
create table vx.probes (
  project_id  uuid not null references vx.projects,
  network     bigint not null,
  region      text not null,
  rtt_ms      real not null,
  jitter_ms   real not null,
  loss        real not null,
  at          timestamptz not null,                 -- when the caller measured it, as it says
  said_at     timestamptz not null default clock_timestamp(),
  primary key (project_id, network, region)
) with (fillfactor = 70);
create index on vx.probes (said_at);

-- Events of the fleet, a log of their own for operators. The key is deterministic: each is written once, by whichever instance.
create table vx.fleet_events (
  n         bigint generated always as identity primary key,
  key       text not null unique,
  id        uuid not null,
  type      text not null,
  region    text not null,
  edge_id   uuid,
  at        timestamptz not null default clock_timestamp(),
  data      jsonb not null default '{}',
  feed_xid  bigint not null default pg_current_xact_id()::text::bigint
);
create index on vx.fleet_events (feed_xid, n);
create index on vx.fleet_events (region, n);
create index on vx.fleet_events (edge_id, n) where edge_id is not null;

-- What was dropped for its age. feed_xid: the newest number among it, so a cursor at or below it may have missed something.
create table vx.kept (
  log         text primary key,                     -- events, fleet
  feed_xid    bigint not null default 0,
  calls_from  uuid not null default '00000000-0000-0000-0000-000000000000'  -- of the calls before this one no event is kept
);
insert into vx.kept (log) values ('events'), ('fleet');

-- Commands to an edge are desired state: carried by whichever instance holds its uplink, acknowledged by version.
create table vx.desired (
  edge_id     uuid not null references vx.edges,
  version     bigint not null,
  kind        text not null,
  call_id     uuid,
  body        jsonb not null default '{}',
  created_at  timestamptz not null default now(),
  primary key (edge_id, version)
);

-- Drains and evacuations: the calls of a region or an edge are to be moved off. At most one that has not ended per target.
create table vx.drains (
  id             uuid primary key,
  region         text not null references vx.regions,
  edge_id        uuid references vx.edges,          -- null: the whole region
  incarnation    uuid,                              -- of an edge that was told to stop: its next life is not drained
  verdict        bigint,                            -- vx.health.version: by the detector's word, and it ends with the verdict
  kind           text not null check (kind in ('drain', 'evacuate')),
  force_at       timestamptz not null,              -- until then the end of a turn is waited for
  total          integer not null,
  started_at     timestamptz not null default clock_timestamp(),
  claimed_until  timestamptz not null default '-infinity',  -- by the instance that plans the next round
  stuck          jsonb not null default '[]',       -- [{call_id, why}] of the newest round
  drained_at     timestamptz,                       -- when the last call had left
  ended_at       timestamptz,
  outcome        text check (outcome in ('canceled', 'stopped', 'recovered'))
);
create unique index on vx.drains (region, coalesce(edge_id, '00000000-0000-0000-0000-000000000000')) where ended_at is null;
create index on vx.drains (edge_id, started_at);

-- Planned moves of calls, the present one and those before. `epoch`: the first that was granted for it.
create table vx.moves (
  call_id    uuid not null,
  epoch      integer not null,
  drain_id   uuid references vx.drains,             -- null: the project asked for it, or `why` says who
  why        jsonb,                                 -- of a move for a gain: regions.wire.ticket.MovedFor
  from_edge  uuid not null,
  to_edge    uuid not null,
  grants     integer not null,
  force_at   timestamptz not null,
  asked_at   timestamptz not null default clock_timestamp(),
  done_at    timestamptz,
  outcome    text check (outcome in ('moved', 'ended', 'failed', 'canceled')),
  primary key (call_id, epoch)
);
create unique index on vx.moves (call_id) where outcome is null;
create index on vx.moves (drain_id, outcome);
create index on vx.moves (done_at);

create table vx.used_tokens (
  jti         text primary key,
  expires_at  timestamptz not null
);

create table vx.signing_keys (
  kid         text primary key,
  public_key  bytea not null,
  wrapped     bytea not null,
  created_at  timestamptz not null default now(),
  used_from   timestamptz not null default now(),
  drops_at    timestamptz                           -- then it verifies nothing any more
);

create table vx.fleet_keys (
  id          text primary key,
  wrapped     bytea not null,
  created_at  timestamptz not null default now(),
  used_from   timestamptz not null default now(),   -- to seal with; it opens from the beginning
  drops_at    timestamptz                           -- then it is destroyed, and what it sealed opens nowhere
);

-- One row per writer of the durable horizon (see docs/explanation/log.md).
create table vx.horizon (
  writer  uuid primary key,
  xid     bigint not null,
  at      timestamptz not null
);

-- Which transactions had begun at a time: whatever began later has a number of at least this. So a feed is entered by time without an
-- index over it (see app/log/feeds.py).
create table vx.feed_marks (
  at   timestamptz primary key,
  xid  bigint not null
);

-- ------------------------------------------------------------------------------------------------------- the log
-- Partitioned by the time of the call's creation, which the call's id carries: a UUIDv7 sorts by it.

create table vx.calls (
  id                  uuid not null primary key,
  project_id          uuid not null,
  state               text not null,
  epoch               integer not null,             -- of the owner; above every grant once the call has ended
  epoch_granted       integer not null,
  grant_edges         uuid[] not null,              -- subscript = epoch: a number is granted once
  grant_incarnations  uuid[] not null,
  grants_expire_at    timestamptz not null,
  attach_by           timestamptz not null,
  n                   integer not null default 0,   -- newest of the owner's events within its epoch
  seq                 integer not null,
  feed_xid            bigint not null,
  region              text,
  edge_id             uuid,
  webhook_id          uuid,
  request             jsonb not null,
  placement           jsonb not null,
  metadata            jsonb not null default '{}',
  max_duration_s      integer not null,
  created_at          timestamptz not null,
  answered_at         timestamptz,
  ended_at            timestamptz,
  end_reason          text,
  key_id              uuid,                         -- that created it
  wrapped             bytea,                        -- the key of its content, wrapped by its project's; null once destroyed
  subject             bytea,                        -- whom it is about, as a keyed hash: to be found when that person is erased
  erased_at           timestamptz
) partition by range (id);
create index on vx.calls (project_id, id desc);
create index on vx.calls (attach_by) where ended_at is null;
create index on vx.calls (project_id, id desc) where ended_at is null;
create index on vx.calls (project_id, subject) where subject is not null;
-- the second column finds the calls of an owner that has restarted, without a look at all the others
create index on vx.calls (edge_id, (grant_incarnations[epoch])) where ended_at is null;
create index on vx.calls (webhook_id) where webhook_id is not null and erased_at is null;
create index on vx.calls (id) where ended_at is null and request #> '{regions,move_for_gain}' = 'true';

create table vx.events (
  call_id       uuid not null,
  seq           integer not null,
  project_id    uuid not null,
  id            uuid not null,
  type          text not null,
  epoch         integer not null,
  source        text not null,                      -- edge, control, project
  source_key    text,                               -- deterministic, for control-plane and project writes
  origin_epoch  integer,                            -- who first numbered it, and how
  origin_n      integer,
  region        text,
  at            timestamptz not null,
  data          jsonb,                              -- null where the data are content
  content       bytea,                              -- ciphertext
  hash          bytea not null,                     -- keyed: tells a duplicate from a conflict
  feed_xid      bigint not null,
  stored_at     timestamptz not null default now(),
  primary key (call_id, seq)
) partition by range (call_id);
create unique index on vx.events (call_id, origin_epoch, origin_n) where origin_n is not null;
create unique index on vx.events (call_id, source_key) where source_key is not null;
create index on vx.events (project_id, feed_xid, call_id, seq);

-- What an owner wrote after it had been succeeded, or after the call had ended: shown, and without effect.
create table vx.late_events (
  call_id       uuid not null,
  origin_epoch  integer not null,
  origin_n      integer not null,
  project_id    uuid not null,
  id            uuid not null,
  type          text not null,
  edge_id       uuid not null,
  region        text,
  at            timestamptz not null,
  data          jsonb,
  content       bytea,
  hash          bytea not null,
  stored_at     timestamptz not null default now(),
  primary key (call_id, origin_epoch, origin_n)
) partition by range (call_id);

-- Calls that may be over without having ended: nobody attached, the caller has gone, the owner has restarted. The reconciler
-- asks every edge that was granted an epoch, and ends the call once none can hold it.
create table vx.overdue (
  call_id  uuid primary key,
  reason   text not null check (reason in ('no_answer', 'caller_lost', 'edge_lost')),
  epoch    integer not null,                        -- of the owner then: a call that has moved on since is alive
  since    timestamptz not null default clock_timestamp()
);
create index on vx.overdue (since);

create table vx.denials (
  call_id      uuid not null references vx.overdue on delete cascade,
  edge_id      uuid not null references vx.edges,
  incarnation  uuid not null,
  epoch        integer not null,                    -- the question is about the grants up to this one
  asked_at     timestamptz not null default clock_timestamp(),
  answer       text check (answer in ('denied', 'held')),
  answered_at  timestamptz,
  primary key (call_id, edge_id, incarnation)
);

-- ------------------------------------------------------------------------------------------------------ webhooks

create table vx.webhooks (
  id               uuid primary key,
  project_id       uuid not null references vx.projects,
  scope            text not null default 'project' check (scope in ('project', 'call')),
  url              text not null,
  description      text not null default '',
  types            text[],                          -- null: all; `call.*` stands for all that begin so
  metadata         jsonb,                           -- null: all calls; else those whose metadata contain this
  local_targets    boolean not null,                -- a test project's: may be dialled on this machine, where the instance allows it
  secrets          jsonb not null,                  -- [{wrapped, created_at, expires_at}], newest first
  signatures       text[] not null default '{v1}',
  headers          bytea,                           -- of the customer's own, sealed
  header_names     text[] not null default '{}',
  format           text not null default 'voxplane' check (format in ('voxplane', 'cloudevents')),
  rate_per_s       integer,
  concurrency      integer,
  tokens           double precision not null default 0,   -- of the rate: what is left at `tokens_at`
  tokens_at        timestamptz not null default '-infinity',
  beside_until     timestamptz not null default '-infinity',  -- a request that is no delivery takes one of the concurrency
  enabled          boolean not null default true,
  disabled_reason  text,
  verified_at      timestamptz,                     -- it has answered a handshake
  failing_since    timestamptz,                     -- nothing but failure since then
  warned           integer not null default 0,      -- per cent of the time after which it is disabled
  waiting          integer not null default 0,      -- deliveries that were waiting when they were last counted
  full_since       timestamptz,                     -- too many were; what comes meanwhile is made up for from the log
  version          integer not null default 1,
  created_at       timestamptz not null default now(),
  named_at         timestamptz,                     -- of a call's: when a create named it, to the hour
  unnamed_at       timestamptz,                     -- of a call's: since then every call that named it is erased; its URL is to go
  deleted_at       timestamptz,
  takes            boolean not null generated always as (enabled and deleted_at is null and full_since is null) stored
);
create index on vx.webhooks (project_id) where deleted_at is null;
create index on vx.webhooks (project_id) where takes and scope = 'project';
create unique index on vx.webhooks (project_id, url) where scope = 'call' and deleted_at is null;
create index on vx.webhooks (named_at) where scope = 'call' and deleted_at is null;
create index on vx.webhooks (unnamed_at) where unnamed_at is not null;

-- Whether an endpoint wants events of a type; `call.*` stands for all that begin so.
create function vx.wants(p_types text[], p_type text) returns boolean language sql immutable as $$
  select p_types is null or p_type = any(p_types) or split_part(p_type, '.', 1) || '.*' = any(p_types)
$$;

-- Whether the call has the metadata an endpoint asks for.
create function vx.of_call(p_metadata jsonb, p_call uuid) returns boolean language sql stable as $$
  select exists (select from vx.calls c where c.id = p_call and c.metadata @> p_metadata)
$$;

-- The jurisdictions that a create names, in one order; none where it names none.
create function vx.jurisdictions_of(p_request jsonb) returns text[] language sql immutable as $$
  select case when p_request #> '{regions,jurisdictions}' is null then '{}'
              else array(select distinct j from jsonb_array_elements_text(p_request #> '{regions,jurisdictions}') j order by j) end
$$;

-- The same of a call that is stored.
create function vx.sent_from(p_call uuid) returns text[] language sql stable as $$
  select coalesce((select vx.jurisdictions_of(c.request) from vx.calls c where c.id = p_call), '{}')
$$;

create table vx.deliveries (
  call_id        uuid not null,
  webhook_id     uuid not null,
  seq            integer not null,
  project_id     uuid not null,
  state          text not null default 'pending',   -- queued (behind another of its line), pending, in_flight, parked, delivered, failed
  attempts       integer not null default 0,
  next_at        timestamptz not null default now(),
  claimed_by     uuid,
  claimed_until  timestamptz,
  first_at       timestamptz,
  done_at        timestamptz,
  base           integer not null default 0,        -- attempts of the rounds before: it was sent again by hand
  replay         boolean not null default false,    -- in the line of what is sent again, which what is new does not wait for
  parked         boolean not null default false,    -- was, at some time: later events of its call do not wait for it any more
  overtook       boolean not null default false,
  last_status    integer,
  last_error     text,
  jurisdictions  text[] not null default '{}',      -- that its call allows: it is sent from there alone; none: from anywhere
  created_at     timestamptz not null default now(),
  primary key (call_id, webhook_id, seq)
) partition by range (call_id);
-- A claim goes from pair to pair of the first two, so that what must be sent from elsewhere is passed over at once, however much it is.
create index on vx.deliveries (webhook_id, jurisdictions, next_at) where state in ('pending', 'parked');
create index on vx.deliveries (webhook_id) where replay and state in ('pending', 'parked', 'in_flight');
create index on vx.deliveries (webhook_id, call_id, seq) where state = 'failed';
create index on vx.deliveries (claimed_until) where state = 'in_flight';
create index on vx.deliveries (call_id, webhook_id, seq) where state in ('queued', 'pending', 'in_flight', 'parked');

create table vx.delivery_attempts (
  call_id      uuid not null,
  webhook_id   uuid not null,
  seq          integer not null,
  attempt      integer not null,
  project_id   uuid not null,
  at           timestamptz not null,
  duration_ms  integer not null,
  status       integer,
  error        text,
  excerpt      text,
  url          text,                                -- asked, whatever the endpoint's is by now
  next_at      timestamptz,                         -- of the next try; null: there is none
  primary key (call_id, webhook_id, seq, attempt)
) partition by range (call_id);
create index on vx.delivery_attempts (webhook_id, at);

-- What an endpoint is to be sent again, read from the log slice by slice: as long as it takes, a few dozen deliveries at a time.
create table vx.replays (
  id           uuid primary key,
  project_id   uuid not null references vx.projects,
  webhook_id   uuid not null references vx.webhooks,
  what         text not null check (what in ('failed', 'missing', 'undelivered', 'all')),
  since        timestamptz not null,                -- of the events, when they were stored
  until        timestamptz not null,
  call_id      uuid not null,                       -- looked at: everything up to this event
  seq          integer not null default 0,
  queued       integer not null default 0,
  state        text not null default 'running' check (state in ('running', 'done', 'canceled')),
  next_at      timestamptz not null default now(),
  created_at   timestamptz not null default now(),
  done_at      timestamptz
);
create index on vx.replays (next_at) where state = 'running';
create index on vx.replays (webhook_id, id);

-- Weekly partitions ahead, and a default one that catches what a clock far off would write.
create function vx.ensure_partitions(p_from timestamptz, p_weeks integer) returns integer
language plpgsql security definer set search_path = vx, pg_temp set timezone = 'UTC' as $$
declare
  t text; week timestamptz; made integer := 0; part text;
begin
  perform pg_advisory_xact_lock(7423001);
  foreach t in array array['calls', 'call_labels', 'events', 'late_events', 'deliveries', 'delivery_attempts'] loop
    for i in 0 .. p_weeks - 1 loop
      week := date_trunc('week', p_from at time zone 'UTC') at time zone 'UTC' + make_interval(weeks => i);
      part := t || to_char(week at time zone 'UTC', '_IYYY"w"IW');
      if to_regclass('vx.' || part) is null then
        execute format('create table vx.%I partition of vx.%I for values from (%L) to (%L)',
                       part, t, vx.first_uuid_at(week), vx.first_uuid_at(week + interval '7 days'));
        made := made + 1;
      end if;
    end loop;
    if to_regclass('vx.' || t || '_default') is null then
      execute format('create table vx.%I partition of vx.%I default', t || '_default', t);
    end if;
  end loop;
  return made;
end $$;

-- Drops the events of the oldest week of calls whose every call had ended two days before p_before, and with them the deliveries and
-- attempts: what they were of is gone. False where there is none.
-- It waits half a second for the lock that it needs, then leaves it for another time: nobody is to wait behind it.
create function vx.drop_events(p_before timestamptz) returns boolean
language plpgsql security definer set search_path = vx, pg_temp set timezone = 'UTC' as $$
declare
  part text; week timestamptz; upto uuid; newest bigint;
begin
  if not pg_try_advisory_xact_lock(7423002) then
    return false;  -- another instance is at it
  end if;
  select c.relname, to_timestamp(right(c.relname, 7), 'IYYY"w"IW') into part, week
    from pg_inherits i join pg_class c on c.oid = i.inhrelid
   where i.inhparent = 'vx.events'::regclass and c.relname ~ '^events_\d{4}w\d{2}$'
   order by c.relname limit 1;
  if part is null or week + interval '9 days' > p_before then
    return false;
  end if;
  upto := vx.first_uuid_at(week + interval '7 days');
  if exists (select from vx.calls where id >= vx.first_uuid_at(week) and id < upto and ended_at is null) then
    return false;
  end if;
  -- nothing is written to a call that has ended. Project by project: a scan of the week would take minutes
  execute format('with recursive p (id) as (
      (select project_id from vx.%1$I order by project_id limit 1)
      union all
      select (select e.project_id from vx.%1$I e where e.project_id > p.id order by e.project_id limit 1) from p where p.id is not null)
    select coalesce(max(l.feed_xid), 0) from p, lateral (
      select e.feed_xid from vx.%1$I e where e.project_id = p.id order by e.feed_xid desc limit 1) l', part) into newest;
  perform set_config('lock_timeout', '500ms', true);
  update vx.kept set feed_xid = greatest(feed_xid, newest), calls_from = greatest(calls_from, upto) where log = 'events';
  execute format('drop table vx.%I', part);
  execute format('drop table if exists vx.%I', 'late_' || part);
  execute format('drop table if exists vx.%I', replace(part, 'events_', 'deliveries_'));
  execute format('drop table if exists vx.%I', replace(part, 'events_', 'delivery_attempts_'));
  return true;
end $$;

-- The same for the calls themselves, a week whose events are gone; and for what a clock far off has written, a few thousand at a
-- time. A call that has not ended stays, and the weeks from its own on.
create function vx.drop_calls(p_before timestamptz, p_most integer) returns boolean
language plpgsql security definer set search_path = vx, pg_temp set timezone = 'UTC' as $$
declare
  part text; week timestamptz; upto uuid; far uuid := vx.first_uuid_at(p_before);
begin
  if not pg_try_advisory_xact_lock(7423002) then
    return false;  -- another instance is at it
  end if;
  with old as (select id from vx.calls_default where id < far and ended_at < p_before limit p_most),
       events as (delete from vx.events_default e using old where e.call_id = old.id),
       late as (delete from vx.late_events_default e using old where e.call_id = old.id),
       deliveries as (delete from vx.deliveries_default e using old where e.call_id = old.id),
       attempts as (delete from vx.delivery_attempts_default e using old where e.call_id = old.id),
       labels as (delete from vx.call_labels_default l using old where l.call_id = old.id)
  delete from vx.calls_default c using old where c.id = old.id;
  select c.relname, to_timestamp(right(c.relname, 7), 'IYYY"w"IW') into part, week
    from pg_inherits i join pg_class c on c.oid = i.inhrelid
   where i.inhparent = 'vx.calls'::regclass and c.relname ~ '^calls_\d{4}w\d{2}$'
   order by c.relname limit 1;
  if part is null or week + interval '9 days' > p_before then
    return false;
  end if;
  upto := vx.first_uuid_at(week + interval '7 days');
  if to_regclass('vx.' || replace(part, 'calls_', 'events_')) is not null
     or exists (select from vx.calls where id >= vx.first_uuid_at(week) and id < upto and ended_at is null) then
    return false;
  end if;
  perform set_config('lock_timeout', '500ms', true);
  execute format('drop table vx.%I', part);
  execute format('drop table if exists vx.%I', replace(part, 'calls_', 'call_labels_'));
  return true;
end $$;

-- Partitions of vx.requests from yesterday to the day after tomorrow; those that are older than p_days are dropped.
create function vx.turn_requests(p_now timestamptz, p_days integer) returns void
language plpgsql security definer set search_path = vx, pg_temp set timezone = 'UTC' as $$
declare
  day timestamptz; part text;
begin
  if not pg_try_advisory_xact_lock(7423003) then
    return;  -- another instance is at it
  end if;
  for i in -1 .. 2 loop
    day := date_trunc('day', p_now) + make_interval(days => i);
    part := 'requests' || to_char(day, 'YYYYMMDD');
    if to_regclass('vx.' || part) is null then
      execute format('create unlogged table vx.%I partition of vx.requests for values from (%L) to (%L)',
                     part, vx.first_uuid_at(day), vx.first_uuid_at(day + interval '1 day'));
    end if;
  end loop;
  perform set_config('lock_timeout', '500ms', true);
  for part in
    select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
     where i.inhparent = 'vx.requests'::regclass and c.relname ~ '^requests\d{8}$'
       and right(c.relname, 8) < to_char(p_now - make_interval(days => p_days), 'YYYYMMDD')
  loop
    execute format('drop table vx.%I', part);
  end loop;
end $$;

create function vx.first_uuid_at(p_at timestamptz) returns uuid language sql immutable as $$
  select (lpad(to_hex((extract(epoch from p_at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

reset role;
