-- What a claim uploads. A worker declares each file before it gets an address to put it at; the completion looks
-- whether the declared files are there. So nobody writes under the key of a task that they do not hold, and what a
-- worker that lost its claim still uploads lies under a claim number that no completion names.

set lock_timeout = '10s';
set statement_timeout = '5min';

create table public.task_uploads (
    task_id uuid not null references public.tasks (id) on delete cascade,
    claim_number bigint not null,
    -- {owner, or project where it has none}/tasks/{task_id}/{claim_number}-{filename}
    storage_path text not null,
    -- null: the client did not say; then only the file's presence can be checked
    size_bytes bigint check (size_bytes >= 0),
    sha256 text check (sha256 ~ '^[0-9a-f]{64}$'),
    md5 text check (md5 ~ '^[0-9a-f]{32}$'),
    declared_at timestamptz not null default clock_timestamp(),
    primary key (task_id, claim_number, storage_path)
);

-- The row, locked, when the claim holds it. Clients of the older contract may leave out the claim number: it is enough
-- that the row was claimed by such a client, and by this worker where one is named. Theirs are also the orchestrators
-- that wait. Raises PT409.
create function private.held(p_task_id uuid, p_worker_id text, p_claim_number bigint) returns public.tasks
language plpgsql set search_path = ''
as $$
declare
    v_task public.tasks;
begin
    select * into v_task from public.tasks where id = p_task_id for update;
    if not private.holds(v_task, p_worker_id, p_claim_number) and not (
        private.holds_unfenced(v_task, p_worker_id)
        and coalesce(p_claim_number, v_task.claim_number) = v_task.claim_number) then
        perform private.raise_stale(p_task_id, coalesce(p_worker_id, 'an unnamed worker'), p_claim_number);
    end if;
    return v_task;
end
$$;

create function private.holds_unfenced(p_task public.tasks, p_worker_id text) returns boolean
language sql stable set search_path = ''
as $$
    select coalesce(p_task.unfenced and p_task.status = 'In Progress'
        and coalesce(p_worker_id = p_task.worker_id, true) and private.may_use(p_task.project_id), false)
$$;

-- Declare a file of the claimed row; repeating it replaces size and checksums (hex). Answers {storage_path,
-- claim_number}. Raises PT409 when the claim does not hold the row.
-- SECURITY DEFINER: who may write the table may declare files of rows that they do not hold.
create function public.declare_upload(
    p_task_id uuid, p_worker_id text, p_claim_number bigint, p_filename text, p_size_bytes bigint default null,
    p_sha256 text default null, p_md5 text default null
) returns jsonb
language plpgsql security definer set search_path = ''
as $$
declare
    v_task public.tasks;
    v_path text;
begin
    perform private.check_filename(p_filename);
    v_task := private.held(p_task_id, p_worker_id, p_claim_number);
    select format('%s/tasks/%s/%s-%s', coalesce(user_id, id), p_task_id, v_task.claim_number, p_filename)
    into v_path from public.projects where id = v_task.project_id;
    insert into public.task_uploads (task_id, claim_number, storage_path, size_bytes, sha256, md5)
    values (p_task_id, v_task.claim_number, v_path, p_size_bytes, lower(p_sha256), lower(p_md5))
    on conflict (task_id, claim_number, storage_path) do update set size_bytes = excluded.size_bytes,
        sha256 = excluded.sha256, md5 = excluded.md5, declared_at = excluded.declared_at;
    return jsonb_build_object('storage_path', v_path, 'claim_number', v_task.claim_number);
end
$$;

-- A name that stays inside its folder. Callers make one out of what users write; here it is only refused.
create function private.check_filename(p_filename text) returns void
language plpgsql immutable set search_path = ''
as $$
begin
    if coalesce(p_filename, '') = '' or p_filename in ('.', '..') or octet_length(p_filename) > 200
        or p_filename ~ '[/\\[:cntrl:]]' then
        raise exception '% is no file name: 1 to 200 bytes without slashes and control characters',
            quote_nullable(left(p_filename, 80)) using errcode = 'PT400', column = 'filename';
    end if;
end
$$;

-- What a claim declared (null: the row's last claim), in the order of the paths.
create function public.declared_uploads(p_task_id uuid, p_claim_number bigint default null) returns jsonb
language sql stable set search_path = ''
as $$
    select coalesce(jsonb_agg(jsonb_build_object('storage_path', upload.storage_path,
        'size_bytes', upload.size_bytes, 'sha256', upload.sha256, 'md5', upload.md5) order by upload.storage_path), '[]')
    from public.task_uploads as upload join public.tasks as task on task.id = upload.task_id
    where upload.task_id = p_task_id and upload.claim_number = coalesce(p_claim_number, task.claim_number)
$$;

-- 'held' while the claim holds the row, 'completed' when this claim completed it; else PT409. Changes and locks
-- nothing. SECURITY DEFINER: private.holds is not for callers; it looks at the owner itself.
create function public.claim_state(p_task_id uuid, p_worker_id text, p_claim_number bigint) returns text
language plpgsql stable security definer set search_path = ''
as $$
declare
    v_task public.tasks;
begin
    select * into v_task from public.tasks where id = p_task_id;
    if private.holds(v_task, p_worker_id, p_claim_number)
        or (p_claim_number is null and private.holds_unfenced(v_task, p_worker_id)) then
        return 'held';
    end if;
    if private.completed_by(v_task, p_worker_id, p_claim_number) then
        return 'completed';
    end if;
    perform private.raise_stale(p_task_id, coalesce(p_worker_id, 'an unnamed worker'), p_claim_number);
end
$$;

-- -- who may ------------------------------------------------------------------------------------------------------

revoke all on public.task_uploads from public, anon, authenticated, service_role;
grant select, insert, update, delete on public.task_uploads to service_role;
grant select on public.task_uploads to authenticated;
alter table public.task_uploads enable row level security;
create policy service on public.task_uploads to service_role using (true) with check (true);
create policy own on public.task_uploads for select to authenticated
    using (exists (select from public.tasks where tasks.id = task_uploads.task_id));

select private.open_to('{declare_upload,declared_uploads,claim_state}', '{}');
