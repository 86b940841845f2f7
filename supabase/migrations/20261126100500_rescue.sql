-- How rows come back into the queue, and what happens to those that nobody takes back. All inside the caller's
-- transaction.

set lock_timeout = '10s';
set statement_timeout = '5min';

-- -- back into the queue ------------------------------------------------------------------------------------------

-- Queue a running row again, or cancel it when that was asked for meanwhile. `p_burned` attempts are counted.
create function private.requeue(
    p_task public.tasks, p_event text, p_burned bigint default 0, p_delay interval default null,
    p_message text default null, p_error_class text default null
) returns public.task_status
language plpgsql set search_path = ''
as $$
begin
    perform private.record(p_task.id, p_event, p_task.worker_id, p_task.claim_number, p_message);
    if p_task.cancel_requested then
        perform private.settle(private.end_tasks(array[p_task.id], 'Cancelled'));
        return 'Cancelled';
    end if;
    update public.tasks set status = 'Queued', worker_id = null, claimed_at = null, attempts = attempts + p_burned,
        run_after = clock_timestamp() + p_delay, error_message = coalesce(p_message, error_message),
        error_class = coalesce(p_error_class, error_class), updated_at = clock_timestamp()
    where id = p_task.id;
    return 'Queued';
end
$$;

-- End a running row as Failed, or as Cancelled when that was asked for.
create function private.fail(p_task public.tasks, p_message text, p_error_class text) returns public.task_status
language plpgsql set search_path = ''
as $$
declare
    v_status public.task_status := case when p_task.cancel_requested then 'Cancelled' else 'Failed' end;
begin
    update public.tasks set attempts = attempts + 1 where id = p_task.id;
    perform private.settle(private.end_tasks(array[p_task.id], v_status, p_message, p_error_class));
    return v_status;
end
$$;

-- -- rescue -------------------------------------------------------------------------------------------------------

-- Take back the rows whose lease ran out. Returns how many. p_person: only that person's.
create function private.rescue_expired(p_max_attempts bigint, p_person uuid) returns bigint
language plpgsql set search_path = '' set jit = off set enable_seqscan = off
as $$
declare
    v_task public.tasks;
    v_death text;
    v_count bigint := 0;
begin
    if not exists (select from public.tasks
                   where status = 'In Progress' and not waiting and lease_expires_at <= clock_timestamp()) then
        return 0;
    end if;
    perform private.alone();
    for v_task in
        select * from public.tasks
        where status = 'In Progress' and not waiting and lease_expires_at <= clock_timestamp()
            and (p_person is null or project_id in (select id from public.projects where user_id = p_person))
        order by seq for update skip locked
    loop
        v_count := v_count + 1;
        continue when private.await_children(v_task);
        v_death := format('worker %s stopped renewing its lease', v_task.worker_id);
        if v_task.attempts + 1 < p_max_attempts or v_task.cancel_requested then
            perform private.requeue(v_task, 'rescued', 1, null, v_death, 'worker_died');
        else
            perform private.poison(v_task, v_death);
        end if;
    end loop;
    return v_count;
end
$$;

create function private.poison(p_task public.tasks, p_death text) returns void
language plpgsql set search_path = ''
as $$
declare
    v_died bigint;
begin
    perform private.record(p_task.id, 'rescued', p_task.worker_id, p_task.claim_number, p_death);
    select count(*) into v_died from public.task_events
    where task_id = p_task.id and name = 'rescued' and id > (
        select coalesce(max(id), 0) from public.task_events where task_id = p_task.id and name = 'queued');
    perform private.fail(p_task,
        format('a worker died %s time(s) while it ran this task, the last was %s; given up after %s attempt(s)',
            v_died, p_task.worker_id, p_task.attempts + 1),
        'poison');
end
$$;

-- Fail queued rows whose params nobody could read. Returns how many rows ended.
create function private.end_unreadable() returns bigint
language plpgsql set search_path = '' set enable_seqscan = off
as $$
declare
    v_task public.tasks;
    v_count bigint := 0;
begin
    if not exists (select from public.tasks where status = 'Queued' and unreadable) then
        return 0;
    end if;
    perform private.alone();
    for v_task in
        select * from public.tasks where status = 'Queued' and unreadable for update skip locked
    loop
        v_count := v_count + 1 + private.settle(private.end_tasks(array[v_task.id], 'Failed',
            format('params: must be a JSON object like {"prompt": "…"}, not %s', left(v_task.params::text, 80)),
            'bad_input'));
    end loop;
    return v_count;
end
$$;

-- Rows that will never go on by themselves. Only rows written from outside get there.
--   missing: the row waits for one that is not there
--   suspect: the row waits for a later one, as one of each circle does; private.on_a_circle knows whether there is one
--   cause: the row did not succeed, and something still waits for it, or for its parent: settle it again
--   childless: a parent that waits for nothing; orchestrator: the same of the older contract
create view private.stuck as
select case when needed.id is null then 'missing' when needed.status = 'Queued' then 'suspect' else 'cause' end as kind,
    case when needed.status in ('Failed', 'Cancelled') then needed.id else task.id end as id,
    dependency.id as needed_id
from public.tasks as task cross join lateral unnest(task.dependant_on) as dependency (id)
left join public.tasks as needed on needed.id = dependency.id
where task.status = 'Queued' and task.dependant_on <> '{}' and (
    needed.id is null or needed.status in ('Failed', 'Cancelled')
    or (needed.status = 'Queued' and needed.seq >= task.seq))
union all
select 'cause', parent.id, null
from public.tasks as task join public.tasks as parent on parent.id = task.parent_id
where task.status = 'Queued' and task.parent_id is not null and parent.status in ('Failed', 'Cancelled')
union all
select 'cause', parent.id, null
from public.tasks as task join public.tasks as parent on parent.id = task.orchestrator_id
where task.status = 'Queued' and task.orchestrator_id is not null and parent.status in ('Failed', 'Cancelled')
union all
select 'childless', parent.id, null
from public.tasks as parent
where parent.status = 'In Progress' and parent.waiting and not parent.unfenced and not exists (
    select from public.tasks as child where child.parent_id = parent.id and child.status in ('Queued', 'In Progress'))
union all
select 'orchestrator', parent.id, null
from public.tasks as parent
where parent.status = 'In Progress' and parent.waiting and parent.unfenced and not exists (
    select from public.tasks as child
    where child.orchestrator_id = parent.id and child.status in ('Queued', 'In Progress'));

-- End them. Returns how many rows ended.
create function private.end_stuck() returns bigint
language plpgsql set search_path = '' set jit = off set enable_seqscan = off
as $$
declare
    v_stuck record;
    v_id uuid;
    v_ended uuid[];
    v_count bigint;
begin
    if not exists (select from private.stuck where kind <> 'suspect')
        and private.on_a_circle(array(select id from private.stuck where kind = 'suspect')) is null then
        return 0;
    end if;
    perform private.alone();
    v_count := private.settle(array(select distinct id from private.stuck where kind = 'cause'));
    for v_stuck in select id, min(needed_id::text) as needed_id from private.stuck
        where kind = 'missing' group by id
    loop
        v_ended := private.end_tasks(array[v_stuck.id], 'Failed',
            format('Not run, because task %s, on which it depends, does not exist', v_stuck.needed_id), 'dependency');
        v_count := v_count + cardinality(v_ended) + private.settle(v_ended);
    end loop;
    for v_stuck in select id from private.stuck where kind = 'childless' loop
        if private.end_parent(v_stuck.id) then
            v_count := v_count + 1 + private.settle(array[v_stuck.id]);
        end if;
    end loop;
    for v_stuck in select id from private.stuck where kind = 'orchestrator' loop
        v_count := v_count + 1 + private.end_or_rerun(v_stuck.id);
    end loop;
    -- some at a time: the others are there for the next rescue
    for number in 1..20 loop
        v_id := private.on_a_circle(array(select id from private.stuck where kind = 'suspect'));
        exit when v_id is null;
        v_ended := private.end_tasks(array[v_id], 'Failed',
            format('Not run, because tasks depend on each other in a circle: %s', private.circle_through(v_id)),
            'dependency');
        v_count := v_count + cardinality(v_ended) + private.settle(v_ended);
    end loop;
    return v_count;
end
$$;

-- Claims whose answer did not arrive are asked for by nobody; their worker goes on, so their leases would be all that
-- ends them, and an attempt would be burned for a request that got lost. Looks before it locks: there are hardly ever any.
create function private.release_unknown(p_worker_id text, p_claims jsonb, p_age interval) returns void
language plpgsql set search_path = ''
as $$
declare
    v_unknown uuid[] := private.unknown_claims(p_worker_id, p_claims, p_age);
    v_task public.tasks;
begin
    if cardinality(v_unknown) = 0 then
        return;
    end if;
    perform private.alone();
    for v_task in select * from public.tasks where id = any (v_unknown) order by seq for update loop
        if v_task.id = any (private.unknown_claims(p_worker_id, p_claims, p_age)) then
            perform private.record(v_task.id, 'unanswered', p_worker_id, v_task.claim_number,
                'the answer to this claim did not reach its worker');
            perform private.requeue(v_task, 'released');
        end if;
    end loop;
end
$$;

create function private.unknown_claims(p_worker_id text, p_claims jsonb, p_age interval) returns uuid[]
language sql stable set search_path = ''
as $$
    select coalesce(array_agg(task.id), '{}')
    from public.tasks as task
    where task.status = 'In Progress' and not task.waiting and not task.unfenced and task.worker_id = p_worker_id
        and task.claimed_at <= clock_timestamp() - p_age and private.may_use(task.project_id)
        and not exists (
            select from jsonb_array_elements(p_claims) as entry
            where private.id_of(entry ->> 'task_id', 'task_id') = task.id and (entry ->> 'claim_number')::bigint = task.claim_number)
$$;

-- -- starting again -----------------------------------------------------------------------------------------------

create function private.restart(p_ids uuid[]) returns uuid[]
language sql set search_path = ''
as $$
    with restarted as (
        update public.tasks set status = 'Queued', worker_id = null, claimed_at = null, attempts = 0, run_after = null,
            progress = null, result_data = null, output_location = null, error_message = null, error_class = null,
            cancel_requested = false, generation_started_at = null, generation_processed_at = null,
            updated_at = clock_timestamp()
        where id = any (p_ids) and status = 'Failed' returning id
    ), recorded as (
        insert into public.task_events (task_id, name, detail) select id, 'queued', 'retried' from restarted
    )
    select coalesce(array_agg(id), '{}') from restarted
$$;

-- Queue a failed row again, with its failed descendants and all that failed because of any of them.
create function private.retry(p_task_id uuid) returns void
language sql set search_path = '' set jit = off
as $$
    with recursive subtree (id) as (
        select p_task_id
        union
        select child.id from subtree, lateral (
            select id from public.tasks where parent_id = subtree.id and status = 'Failed'
            union all
            select id from public.tasks where orchestrator_id = subtree.id and status = 'Failed'
        ) as child
    ), failed (id) as (
        select id from subtree
        union
        select other.id from failed, lateral (
            select id from public.tasks where dependant_on @> array[failed.id] and dependant_on <> '{}'
                and status = 'Failed' and error_class = 'dependency'
            union all
            select id from public.tasks where parent_id = failed.id and status = 'Failed' and error_class = 'parent'
            union all
            select id from public.tasks
            where orchestrator_id = failed.id and status = 'Failed' and error_class = 'parent'
            union all
            select parent.id from public.tasks as child
            join public.tasks as parent on parent.id = coalesce(child.parent_id, child.orchestrator_id)
            where child.id = failed.id and parent.status = 'Failed'
        ) as other
    )
    select private.restart(array_agg(id)) from failed
$$;
