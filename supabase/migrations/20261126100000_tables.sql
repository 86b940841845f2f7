-- The tables. Once released, change them by a new migration, not here.
--
-- Runs on hosted Supabase and on any Postgres 15-18 that has Supabase's roles (anon, authenticated, service_role) and
-- its schema auth. No extension is needed. What rows must obey stands in …_rules.sql, who may do what in …_roles.sql.

set lock_timeout = '10s';
set statement_timeout = '5min';

-- Everything that is not part of the API. PostgREST does not show it.
create schema private;

create type public.task_status as enum ('Queued', 'In Progress', 'Complete', 'Failed', 'Cancelled');

-- People. `id` is the `sub` of their tokens (auth.users.id on hosted Supabase).
create table public.users (
    id uuid primary key,
    -- null: nothing is charged, so nothing is refused for want of credits
    credits numeric,
    -- tasks of one person that run at the same time; orchestrators and waiting parents do not count
    max_in_progress bigint not null default 5 check (max_in_progress >= 0),
    -- front ends keep theirs here; ui.generationMethods.inCloud = false keeps the tasks from workers of the service
    settings jsonb not null default '{}',
    created_at timestamptz not null default now()
);

create table public.projects (
    id uuid primary key default gen_random_uuid(),
    -- null: the installation's own, for which no limit holds and which only the service role sees
    user_id uuid references public.users (id) on delete cascade,
    name text not null default '',
    created_at timestamptz not null default now()
);
create index projects_by_user on public.projects (user_id);

-- Where tasks go that name no project: enough for an installation with one user.
insert into public.projects (id, name) values ('00000000-0000-0000-0000-000000000000', 'default');

-- Personal access tokens. Only their SHA-256 is kept: who reads this table cannot use it.
create table public.user_api_tokens (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null references public.users (id) on delete cascade,
    token_hash text not null unique check (token_hash ~ '^[0-9a-f]{64}$'),
    name text not null default '',
    created_at timestamptz not null default now(),
    last_used_at timestamptz
);
create index user_api_tokens_by_user on public.user_api_tokens (user_id);

-- What is known of a task type. One without a row counts as active and of run type gpu: its worker says what is wrong.
create table public.task_types (
    name text primary key,
    run_type text not null default 'gpu' check (run_type in ('gpu', 'api')),
    category text not null default 'generation',
    tool_type text,
    content_type text check (content_type in ('image', 'video', 'text')),
    base_cost_per_second numeric,
    is_active boolean not null default true
);

create table public.workers (
    id text primary key check (id <> ''),
    -- whose own worker it is; null: one of the service
    user_id uuid references public.users (id) on delete cascade,
    instance_type text not null default 'external',
    status text not null default 'active',
    last_heartbeat timestamptz,
    metadata jsonb not null default '{}',
    current_model text,
    -- whose row it was given last (tasks.owner_id): the next owner in turn comes after that one
    served uuid,
    created_at timestamptz not null default now()
);

create index workers_by_user on public.workers (user_id) where user_id is not null;

create table public.tasks (
    id uuid primary key default gen_random_uuid(),
    -- the order of insertion
    seq bigint generated always as identity,
    task_type text not null check (task_type <> ''),
    params jsonb not null,
    -- no task at all: fails at the next claim
    unreadable boolean not null generated always as (jsonb_typeof(params) <> 'object') stored,
    status public.task_status not null default 'Queued',
    dependant_on uuid[] not null default '{}',
    output_location text,
    created_at timestamptz not null default now(),
    updated_at timestamptz default now(),
    generation_started_at timestamptz,
    generation_processed_at timestamptz,
    project_id uuid not null default '00000000-0000-0000-0000-000000000000'
        references public.projects (id) on delete cascade,
    -- who takes turns with others: the person whose project it is, or the project where nobody owns that
    owner_id uuid not null default '00000000-0000-0000-0000-000000000000',
    worker_id text,
    claimed_at timestamptz,
    -- rises at every claim and cannot be set: the fencing token
    claim_number bigint not null default 0,
    -- failures and deaths so far: the retry budget
    attempts bigint not null default 0,
    lease_expires_at timestamptz,
    run_after timestamptz,
    priority bigint not null default 0,
    -- how often rows of a loaded model were taken before this one although it was its owner's oldest, and since when
    passed_over bigint not null default 0,
    passed_over_since timestamptz,
    waiting boolean not null default false,
    paused boolean not null default false,
    -- no foreign key: a child outlives a parent that a front end deleted
    parent_id uuid,
    child_key text,
    -- a child of the older contract, which names its orchestrator in the params only; set when it is inserted
    orchestrator_id uuid,
    model text,
    progress jsonb,
    result_data jsonb,
    error_message text,
    error_class text,
    cancel_requested boolean not null default false,
    -- claimed by a client of the older contract, whose writes carry no claim number
    unfenced boolean not null default false,
    -- No phantoms: nobody is In Progress without a worker and something that ends it, a lease or the last child.
    constraint tasks_in_progress_is_held check (
        status <> 'In Progress'
        or (worker_id is not null and claimed_at is not null and (lease_expires_at is not null or waiting))
    ),
    constraint tasks_waiting_is_in_progress check (not waiting or (status = 'In Progress' and lease_expires_at is null))
);

-- What claims read: queued rows only, so that a long history costs nothing.
create index tasks_claim on public.tasks (priority desc, owner_id, created_at, seq)
    where status = 'Queued' and not paused;
create index tasks_claim_model on public.tasks (priority desc, owner_id, coalesce(model, task_type), created_at, seq)
    where status = 'Queued' and not paused;
create index tasks_unreadable on public.tasks (id) where status = 'Queued' and unreadable;
create index tasks_lease on public.tasks (lease_expires_at) where status = 'In Progress' and not waiting;
create index tasks_waiting on public.tasks (id) where status = 'In Progress' and waiting;
create index tasks_in_progress on public.tasks (project_id) where status = 'In Progress';
create unique index tasks_children on public.tasks (parent_id, child_key) where parent_id is not null;
create index tasks_open_children on public.tasks (parent_id)
    where parent_id is not null and status in ('Queued', 'In Progress');
create index tasks_of_orchestrator on public.tasks (orchestrator_id) where orchestrator_id is not null;
create index tasks_open_of_orchestrator on public.tasks (orchestrator_id)
    where orchestrator_id is not null and status in ('Queued', 'In Progress');
create index tasks_queued_with_dependencies on public.tasks (id) where status = 'Queued' and dependant_on <> '{}';
-- Without a list of pending entries, which every look would read to its end.
create index tasks_dependants on public.tasks using gin (dependant_on) with (fastupdate = off)
    where status in ('Queued', 'Failed') and dependant_on <> '{}';
create index tasks_by_status on public.tasks (status, created_at, seq);
create index tasks_by_age on public.tasks (created_at, seq);
create index tasks_by_project on public.tasks (project_id, created_at, seq);
-- get-completed-segments: the segments of a run of travel
create index tasks_segments on public.tasks ((params ->> 'orchestrator_run_id'))
    where task_type = 'travel_segment' and status = 'Complete';
-- task_counts, throughput: what ended lately, without a look at the rows
create index tasks_ended on public.tasks (generation_processed_at) include (status, task_type, generation_started_at)
    where status in ('Complete', 'Failed', 'Cancelled');

create table public.task_events (
    id bigint generated always as identity primary key,
    task_id uuid not null references public.tasks (id) on delete cascade,
    at timestamptz not null default clock_timestamp(),
    name text not null,
    worker_id text,
    claim_number bigint,
    detail text
);
create index task_events_by_task on public.task_events (task_id, id);
-- latest_change: the events that can matter to another worker
create index task_events_changes on public.task_events (id)
    where name in ('queued', 'released', 'rescued', 'retry', 'fanned_out', 'complete', 'failed', 'cancelled',
                   'cancel_requested');

-- What was made: one row for each completed task with an output, so a repeated completion adds none. What a person
-- uploaded has no task.
create table public.generations (
    id uuid primary key default gen_random_uuid(),
    task_id uuid unique references public.tasks (id) on delete cascade,
    parent_task_id uuid,
    project_id uuid not null references public.projects (id) on delete cascade,
    type text,
    location text not null,
    thumbnail_url text,
    created_at timestamptz not null default now()
);
create index generations_by_project on public.generations (project_id, created_at);

create table public.system_logs (
    id bigint generated always as identity primary key,
    timestamp timestamptz not null default now(),
    source_type text not null default 'worker',
    source_id text,
    log_level text not null default 'INFO',
    message text not null,
    task_id uuid,
    worker_id text,
    cycle_number bigint,
    metadata jsonb not null default '{}'
);
create index system_logs_by_age on public.system_logs (timestamp);
create index system_logs_by_task on public.system_logs (task_id) where task_id is not null;

insert into public.task_types (name, category, content_type)
select name, category, content_type
from (values
    ('generation', 'video', '{generate_video,t2v,t2v_22,i2v,i2v_22,vace,vace_21,vace_22,hunyuan,ltxv}'),
    ('generation', 'image', '{wan_2_2_t2i,flux,z_image_turbo,z_image_turbo_i2i,qwen_image,qwen_image_2512,
        qwen_image_edit,qwen_image_hires,qwen_image_style,image_inpaint,annotated_image_edit,magic_edit}'),
    ('orchestration', 'video', '{travel_orchestrator,join_clips_orchestrator,edit_video_orchestrator}'),
    ('orchestration', 'image', '{different_perspective_orchestrator,different_pose}'),
    ('child', 'video', '{travel_segment,travel_stitch,travel_guidance,join_clips_segment,join_clips,join_final_stitch,
        join_reverse,upscale_video,postprocess_video}'),
    ('child', 'image', '{dp_final_gen}'),
    ('processing', 'video', '{individual_travel_segment,inpaint_frames,create_visualization,rife_interpolate_images}'),
    ('processing', 'image', '{extract_frame,create_mask}'),
    ('processing', 'text', '{enhance_prompt,enhance_prompts}'),
    -- a picture or a video, as their input is
    ('generation', null, '{wgp,standard_wgp_task,comfy}'),
    ('processing', null, '{generate_openpose,openpose,generate_depth,generate_canny,generate_scribble,generate_flow}')
) as listed (category, content_type, names), unnest(names::text[]) as name;
