-- Shots: images on a timeline, between which a run of travel goes. Front ends write them; workers write the prompts
-- that they made for the pairs.

set lock_timeout = '10s';
set statement_timeout = '5min';

create table public.shots (
    id uuid primary key default gen_random_uuid(),
    project_id uuid not null references public.projects (id) on delete cascade,
    name text not null default '',
    created_at timestamptz not null default now()
);
create index shots_by_project on public.shots (project_id);

create table public.shot_generations (
    id uuid primary key default gen_random_uuid(),
    shot_id uuid not null references public.shots (id) on delete cascade,
    generation_id uuid not null references public.generations (id) on delete cascade,
    -- null or negative: in the shot, but not on its timeline
    timeline_frame bigint,
    metadata jsonb not null default '{}' check (jsonb_typeof(metadata) = 'object'),
    created_at timestamptz not null default now()
);
create index shot_generations_by_shot on public.shot_generations (shot_id, timeline_frame, id);
create index shot_generations_by_generation on public.shot_generations (generation_id);

-- Write the i-th prompt to the i-th image on the shot's timeline (metadata.enhanced_prompt). Videos do not count as
-- images. Answers how many prompts were written, skipped because they are empty, and failed for want of an image.
-- Raises PT404.
create function public.update_shot_pair_prompts(p_shot_id uuid, p_enhanced_prompts text[]) returns jsonb
language plpgsql set search_path = ''
as $$
declare
    v_images uuid[];
    v_updated bigint;
    v_skipped bigint;
begin
    if not exists (select from public.shots where id = p_shot_id) then
        raise exception 'there is no shot %', p_shot_id using errcode = 'PT404', column = 'shot_id';
    end if;
    v_images := array(
        select placed.id
        from public.shot_generations as placed join public.generations as made on made.id = placed.generation_id
        where placed.shot_id = p_shot_id and placed.timeline_frame >= 0
            and coalesce(made.type, '') !~* 'video' and made.location !~* '\.(mp4|avi|mov|mkv|webm|m4v)([?#]|$)'
        order by placed.timeline_frame, placed.id);
    update public.shot_generations as placed
    set metadata = placed.metadata || jsonb_build_object('enhanced_prompt', given.prompt)
    from unnest(v_images, p_enhanced_prompts) as given (image, prompt)
    where placed.id = given.image and trim(given.prompt) <> '';
    get diagnostics v_updated = row_count;
    select count(*) into v_skipped from unnest(p_enhanced_prompts) as prompt where coalesce(trim(prompt), '') = '';
    return jsonb_build_object('updated_count', v_updated, 'skipped_count', v_skipped,
        'failed_count', coalesce(cardinality(p_enhanced_prompts), 0) - v_updated - v_skipped);
end
$$;

-- -- who may ------------------------------------------------------------------------------------------------------

revoke all on public.shots, public.shot_generations from public, anon, authenticated, service_role;
grant select, insert, update, delete on public.shots, public.shot_generations to service_role;
grant select, insert (id, project_id, name), update (name), delete on public.shots to authenticated;
grant select, insert (id, shot_id, generation_id, timeline_frame, metadata), update (timeline_frame, metadata), delete
    on public.shot_generations to authenticated;
-- an image that a person uploaded; what tasks made is written by their completion
grant insert (id, project_id, type, location, thumbnail_url) on public.generations to authenticated;

alter table public.shots enable row level security;
alter table public.shot_generations enable row level security;
create policy service on public.shots to service_role using (true) with check (true);
create policy service on public.shot_generations to service_role using (true) with check (true);
create policy own on public.shots to authenticated
    using (project_id in (select id from public.projects where user_id = (select auth.uid())))
    with check (project_id in (select id from public.projects where user_id = (select auth.uid())));
create policy own on public.shot_generations to authenticated
    using (shot_id in (select id from public.shots))
    with check (shot_id in (select id from public.shots) and generation_id in (select id from public.generations));
create policy uploaded on public.generations for insert to authenticated
    with check (task_id is null
        and project_id in (select id from public.projects where user_id = (select auth.uid())));

select private.open_to('{update_shot_pair_prompts}', '{}');
