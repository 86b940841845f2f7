-- How rows leave the queue. All inside the caller's transaction.

set lock_timeout = '10s';
set statement_timeout = '5min';

-- Rows that nothing of their own holds back. What holds their owner back are columns: only those asked for cost time.
-- Scalar subqueries, so that a claim walks tasks_claim and stops at the first rows that fit.
create view private.claimable as
select task.*,
    coalesce((select run_type from public.task_types where name = task.task_type), 'gpu') as run_type,
    (select project.user_id is null
        or ((person.credits is null or person.credits > 0)
            and coalesce(person.settings #>> '{ui,generationMethods,inCloud}', 'true') <> 'false')
     from public.projects as project left join public.users as person on person.id = project.user_id
     where project.id = task.project_id) as in_cloud,
    (select project.user_id is null
        or coalesce(person.settings #>> '{ui,generationMethods,onComputer}', 'true') <> 'false'
     from public.projects as project left join public.users as person on person.id = project.user_id
     where project.id = task.project_id) as on_computer
from public.tasks as task
where task.status = 'Queued' and not task.paused and not task.unreadable
    and (task.run_after is null or task.run_after <= clock_timestamp())
    and (task.dependant_on = '{}' or not exists (
        select from unnest(task.dependant_on) as needed (id)
        left join public.tasks as found on found.id = needed.id
        where found.status is distinct from 'Complete'))
    and coalesce((select is_active from public.task_types where name = task.task_type), true);

-- The projects of people who have as many tasks running as they may.
create function private.full_projects() returns uuid[]
language sql stable set search_path = ''
as $$
    select coalesce(array_agg(project.id), '{}')
    from (
        select person.id
        from public.tasks as task join public.projects as project on project.id = task.project_id
        join public.users as person on person.id = project.user_id
        where task.status = 'In Progress' and not task.waiting and not private.is_orchestrator(task.task_type)
        group by person.id having count(*) >= person.max_in_progress
        union
        select id from public.users where max_in_progress = 0
    ) as busy join public.projects as project on project.user_id = busy.id
$$;

-- What a claim asks for. person: whose own worker asks, null for one of the service; full: projects that may not have
-- more; own: the person's projects.
create type private.wish as (
    worker_id text, lease interval, loaded_model text, same_model_only boolean, task_types text[], run_type text,
    person uuid, own uuid[], full_up uuid[], unfenced boolean
);

-- Take rows: highest priority first; within a priority those of the loaded model, then the oldest. Rows that another
-- claim is just taking are passed by.
-- The settings hold for what this calls too. Postgres cannot guess how few rows the conditions of claimable refuse, and
-- would rather collect and sort all queued rows than walk them in order to the first that fits.
create function private.claim(p_wish private.wish, p_limit bigint) returns setof public.tasks
language plpgsql set search_path = '' set plan_cache_mode = force_custom_plan set jit = off
set enable_sort = off set enable_bitmapscan = off set enable_seqscan = off
as $$
declare
    v_warm boolean := p_wish.loaded_model is not null
        and (p_wish.same_model_only or private.may_prefer(p_wish.worker_id));
    v_priority bigint;
    v_taken uuid[] := '{}';
begin
    p_wish.own := array(select id from public.projects where user_id = p_wish.person);
    p_wish.full_up := case when p_wish.person is null then private.full_projects() else '{}' end;
    while cardinality(v_taken) < p_limit loop
        if v_warm then
            v_priority := private.next_priority(p_wish, v_priority);
            exit when v_priority is null;
            v_taken := v_taken || private.take(p_wish,
                private.pick(p_wish, p_limit - cardinality(v_taken), v_priority, p_wish.loaded_model));
            continue when p_wish.same_model_only;
        end if;
        v_taken := v_taken || private.take(p_wish,
            private.pick(p_wish, p_limit - cardinality(v_taken), v_priority, null));
        exit when not v_warm;
    end loop;
    if p_wish.loaded_model is not null and cardinality(v_taken) > 0 then
        perform private.count_warm(p_wish, v_warm, v_taken);
    end if;
    return query select task.* from unnest(v_taken) with ordinality as taken (id, place)
        join public.tasks as task on task.id = taken.id order by taken.place;
end
$$;

-- The highest priority below `p_below` (null: at all) at which there is a row for the wish.
create function private.next_priority(p_wish private.wish, p_below bigint) returns bigint
language plpgsql set search_path = ''
as $$
begin
    return (
        select priority from private.claimable
        where (p_below is null or priority < p_below)
            and (not p_wish.same_model_only or model = p_wish.loaded_model)
            and (p_wish.task_types is null or task_type = any (p_wish.task_types))
            and (p_wish.run_type is null or run_type = p_wish.run_type)
            and project_id <> all (p_wish.full_up) and (p_wish.person is null or project_id = any (p_wish.own))
            and case when p_wish.person is null then in_cloud else on_computer end
        order by priority desc, created_at, seq limit 1);
end
$$;

-- Lock the first rows for the wish that nobody else has locked, of one priority and one model (null: of any). Returns
-- their ids in order.
create function private.pick(p_wish private.wish, p_limit bigint, p_priority bigint, p_model text) returns uuid[]
language plpgsql set search_path = ''
as $$
begin
    return (
        select coalesce(array_agg(id order by priority desc, created_at, seq), '{}')
        from (
            select id, priority, created_at, seq from private.claimable
            where (p_priority is null or priority = p_priority) and (p_model is null or model = p_model)
                and (p_wish.task_types is null or task_type = any (p_wish.task_types))
                and (p_wish.run_type is null or run_type = p_wish.run_type)
                and project_id <> all (p_wish.full_up) and (p_wish.person is null or project_id = any (p_wish.own))
                and case when p_wish.person is null then in_cloud else on_computer end
            order by priority desc, created_at, seq limit p_limit for update skip locked
        ) as picked);
end
$$;

-- The update of a claim, on rows that the caller has locked; those that are Queued, whatever was locked. Returns their
-- ids in the given order.
create function private.take(p_wish private.wish, p_ids uuid[]) returns uuid[]
language sql set search_path = ''
as $$
    with taken as (
        update public.tasks set status = 'In Progress', worker_id = p_wish.worker_id, claimed_at = clock_timestamp(),
            lease_expires_at = clock_timestamp() + p_wish.lease, run_after = null, progress = null,
            generation_started_at = coalesce(generation_started_at, clock_timestamp()), unfenced = p_wish.unfenced,
            updated_at = clock_timestamp()
        where id = any (p_ids) and status = 'Queued' returning id, claim_number
    ), recorded as (
        insert into public.task_events (task_id, name, worker_id, claim_number)
        select id, 'claimed', p_wish.worker_id, claim_number from taken
    )
    select coalesce(array_agg(id order by array_position(p_ids, id)), '{}') from taken
$$;

-- A worker that always found rows of its model would pass the others by for ever: after 8 such rows in a row it takes
-- the oldest.
create function private.may_prefer(p_worker_id text) returns boolean
language sql stable set search_path = ''
as $$
    select coalesce((select warm_streak < 8 from public.workers where id = p_worker_id), true)
$$;

create function private.count_warm(p_wish private.wish, p_warm boolean, p_taken uuid[]) returns void
language plpgsql set search_path = ''
as $$
declare
    v_streak bigint;
begin
    select case when p_warm and bool_and(model is not distinct from p_wish.loaded_model) then count(*) else 0 end
    into v_streak from public.tasks where id = any (p_taken);
    insert into public.workers as worker (id, user_id, warm_streak, current_model)
    values (p_wish.worker_id, p_wish.person, v_streak, p_wish.loaded_model)
    on conflict (id) do update
        set warm_streak = case when excluded.warm_streak = 0 then 0 else worker.warm_streak + excluded.warm_streak end;
end
$$;
