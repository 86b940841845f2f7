-- What a task that runs looks like so far: one small picture a task, replaced by the next, gone when its claim ends.

set lock_timeout = '10s';
set statement_timeout = '5min';

create table public.task_previews (
    task_id uuid primary key references public.tasks (id) on delete cascade,
    -- of the claim under which it was made
    claim_number bigint not null,
    at timestamptz not null default clock_timestamp(),
    -- the step after which it was made, counted from 1
    step bigint not null check (step >= 0),
    media_type text not null check (media_type in ('image/webp', 'image/png', 'image/jpeg')),
    image bytea not null check (octet_length(image) between 1 and 32768)
);

revoke all on public.task_previews from public, anon, authenticated, service_role;
grant select, insert, update, delete on public.task_previews to service_role;
grant select on public.task_previews to authenticated;
alter table public.task_previews enable row level security;
create policy service on public.task_previews to service_role using (true) with check (true);
create policy own on public.task_previews for select to authenticated
    using (exists (select from public.tasks where tasks.id = task_previews.task_id));

-- SECURITY DEFINER: whoever ends a task need not be allowed to remove a preview.
create function private.remove_preview() returns trigger
language plpgsql security definer set search_path = ''
as $$
begin
    delete from public.task_previews where task_id = new.id;
    return null;
end
$$;

-- A parent that waits has no claim any more either.
create trigger tasks_remove_preview after update of status, waiting on public.tasks
for each row when (old.status = 'In Progress' and (new.status <> 'In Progress' or new.waiting))
execute function private.remove_preview();

-- Keep the picture (base64) as the task's preview, in place of the one before. Raises PT409 for a stale claim.
create function public.show_preview(
    p_task_id uuid, p_worker_id text, p_claim_number bigint, p_step bigint, p_media_type text, p_image text
) returns void
language plpgsql security definer set search_path = ''
as $$
begin
    perform private.claimed(p_task_id, p_worker_id, p_claim_number);
    insert into public.task_previews (task_id, claim_number, step, media_type, image)
    values (p_task_id, p_claim_number, p_step, p_media_type, decode(p_image, 'base64'))
    on conflict (task_id) do update set claim_number = excluded.claim_number, at = excluded.at, step = excluded.step,
        media_type = excluded.media_type, image = excluded.image;
end
$$;

-- The preview of a task: task_id, claim_number, at, step, media_type, image (base64). Null where there is none.
create function public.task_preview(p_task_id uuid) returns jsonb
language sql stable set search_path = ''
as $$
    select to_jsonb(preview) || jsonb_build_object(
        'at', private.iso(preview.at), 'image', translate(encode(preview.image, 'base64'), E'\n', ''))
    from public.task_previews as preview where preview.task_id = p_task_id
$$;

select private.open_to('{show_preview,task_preview}', '{}');
