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

-- -- the order ----------------------------------------------------------------------------------------------------

-- What a claim asks for. person: whose own worker asks, null for one of the service; served: whose row that worker was
-- given last; affinity_tasks, affinity_wait: how often, and for how long, rows of the loaded model go before an older one.
create type private.wish as (
    worker_id text, lease interval, loaded_model text, same_model_only boolean, task_types text[], run_type text,
    person uuid, served uuid, affinity_tasks bigint, affinity_wait interval, unfenced boolean
);

-- Take rows, one after the other. The order: the highest priority; then the owner of whom the fewest rows run, and among
-- equals the one whose turn it is; of that owner's rows those of the loaded model, within the bound; then the oldest.
-- It is an order and never a refusal: whoever asks gets a row as long as there is one. Rows that another claim is just
-- taking are passed by.
-- The settings hold for what this calls too. Postgres cannot guess how few rows the conditions of claimable refuse, and
-- would rather collect and sort all queued rows than walk them in order to the first that fits.
create function private.claim(p_wish private.wish, p_limit bigint) returns setof public.tasks
language plpgsql set search_path = '' set plan_cache_mode = force_custom_plan set jit = off
set enable_sort = off set enable_bitmapscan = off set enable_seqscan = off
as $$
declare
    v_taken uuid[] := '{}';
    v_id uuid;
begin
    while cardinality(v_taken) < p_limit loop
        p_wish.served := (select served from public.workers where id = p_wish.worker_id);
        v_id := private.take(p_wish, private.next_row(p_wish));
        exit when v_id is null;
        v_taken := v_taken || v_id;
        perform private.remember_served(p_wish, v_id);
    end loop;
    return query select task.* from unnest(v_taken) with ordinality as taken (id, place)
        join public.tasks as task on task.id = taken.id order by taken.place;
end
$$;

-- The row that comes next, locked; null when there is none that nobody else has locked.
create function private.next_row(p_wish private.wish) returns uuid
language plpgsql set search_path = ''
as $$
declare
    v_priority bigint;
    v_owner uuid;
    v_id uuid;
begin
    v_priority := (
        select priority from public.tasks where status = 'Queued' and not paused order by priority desc limit 1);
    while v_priority is not null loop
        foreach v_owner in array private.owners_in_turn(p_wish, v_priority) loop
            v_id := private.row_of(p_wish, v_priority, v_owner);
            if v_id is not null then
                return v_id;
            end if;
        end loop;
        v_priority := private.next_priority(p_wish, v_priority);
    end loop;
    return null;
end
$$;

-- The highest priority below that at which there is a row for the wish. Walks past all others at once: somebody may give
-- each of thousands of rows a priority of its own.
create function private.next_priority(p_wish private.wish, p_below bigint) returns bigint
language plpgsql set search_path = ''
as $$
begin
    return (
        select priority from private.claimable
        where priority < p_below
            and (not p_wish.same_model_only or coalesce(model, task_type) = p_wish.loaded_model)
            and (p_wish.task_types is null or task_type = any (p_wish.task_types))
            and (p_wish.run_type is null or run_type = p_wish.run_type)
            and case when p_wish.person is null
                then in_cloud and project_id <> all ((select private.full_projects())::uuid[])
                else on_computer and owner_id = p_wish.person end
        order by priority desc limit 1);
end
$$;

-- The owners who have queued rows of a priority and may have one more running, in their order. The first part jumps from
-- owner to owner in tasks_claim: how many rows each of them has costs nothing.
create function private.owners_in_turn(p_wish private.wish, p_priority bigint) returns uuid[]
language sql stable set search_path = ''
as $$
    with recursive owner (id) as (
        (select owner_id from public.tasks where status = 'Queued' and not paused and priority = p_priority
         order by owner_id limit 1)
        union all
        select (select owner_id from public.tasks where status = 'Queued' and not paused and priority = p_priority
                    and owner_id > owner.id order by owner_id limit 1)
        from owner where owner.id is not null
    ), running (id, count) as (
        -- a filter, which is asked once a type: as a condition it would be asked once a row
        select owner_id, sum(count) filter (where not private.is_orchestrator(task_type))
        from (select owner_id, task_type, count(*) from public.tasks where status = 'In Progress' and not waiting
              group by owner_id, task_type) as of_type
        group by owner_id
    )
    select coalesce(array_agg(owner.id order by coalesce(running.count, 0), owner.id <= p_wish.served, owner.id), '{}')
    from owner left join running on running.id = owner.id left join public.users as person on person.id = owner.id
    where owner.id is not null and case
        when p_wish.person is not null then owner.id = p_wish.person
            and coalesce(person.settings #>> '{ui,generationMethods,onComputer}', 'true') <> 'false'
        when person.id is null then true
        else (person.credits is null or person.credits > 0) and coalesce(running.count, 0) < person.max_in_progress
            and coalesce(person.settings #>> '{ui,generationMethods,inCloud}', 'true') <> 'false' end
$$;

-- An owner's next row of one priority, locked: one of the loaded model, unless the oldest was passed over often or long
-- enough; then that. Null when there is none.
create function private.row_of(p_wish private.wish, p_priority bigint, p_owner uuid) returns uuid
language plpgsql set search_path = ''
as $$
declare
    v_oldest uuid;
    v_warm uuid;
begin
    if p_wish.same_model_only and p_wish.loaded_model is not null then
        return private.pick(p_wish, p_priority, p_owner, p_wish.loaded_model);
    end if;
    v_oldest := private.pick(p_wish, p_priority, p_owner, null);
    if v_oldest is null or p_wish.loaded_model is null then
        return v_oldest;
    end if;
    v_warm := private.pick(p_wish, p_priority, p_owner, p_wish.loaded_model);
    if v_warm is null or v_warm = v_oldest then
        return v_oldest;
    end if;
    update public.tasks
    set passed_over = passed_over + 1, passed_over_since = coalesce(passed_over_since, clock_timestamp())
    where id = v_oldest and passed_over < p_wish.affinity_tasks
        and coalesce(passed_over_since > clock_timestamp() - p_wish.affinity_wait, true);
    return case when found then v_warm else v_oldest end;
end
$$;

-- The oldest row of one priority, one owner and one model (null: of any) that nobody else has locked; locks it. A row
-- without a model counts under its type.
create function private.pick(p_wish private.wish, p_priority bigint, p_owner uuid, p_model text) returns uuid
language plpgsql set search_path = ''
as $$
begin
    return (
        select id from private.claimable
        where priority = p_priority and owner_id = p_owner
            and (p_model is null or coalesce(model, task_type) = p_model)
            and (p_wish.task_types is null or task_type = any (p_wish.task_types))
            and (p_wish.run_type is null or run_type = p_wish.run_type)
        order by created_at, seq limit 1 for update skip locked);
end
$$;

-- The update of a claim, on a row that the caller has locked; only if it is Queued, whatever was locked. Returns its id,
-- or null.
create function private.take(p_wish private.wish, p_id uuid) returns uuid
language sql set search_path = ''
as $$
    with taken as (
        update public.tasks set status = 'In Progress', worker_id = p_wish.worker_id, claimed_at = clock_timestamp(),
            lease_expires_at = clock_timestamp() + p_wish.lease, run_after = null, progress = null,
            generation_started_at = coalesce(generation_started_at, clock_timestamp()), unfenced = p_wish.unfenced,
            passed_over = 0, passed_over_since = null, updated_at = clock_timestamp()
        where id = p_id and status = 'Queued' returning id, claim_number
    ), recorded as (
        insert into public.task_events (task_id, name, worker_id, claim_number)
        select id, 'claimed', p_wish.worker_id, claim_number from taken
    )
    select id from taken
$$;

-- Nothing is written where one owner has all the work, and for a person's own worker.
create function private.remember_served(p_wish private.wish, p_id uuid) returns void
language sql set search_path = ''
as $$
    insert into public.workers (id, served)
    select p_wish.worker_id, owner_id from public.tasks
    where id = p_id and p_wish.person is null and owner_id is distinct from p_wish.served
    on conflict (id) do update set served = excluded.served
$$;
