-- What a worker calls: claims, heartbeats, and the writes on what it has claimed. See …_api.sql for the manner.

set lock_timeout = '10s';
set statement_timeout = '5min';

-- -- claiming -----------------------------------------------------------------------------------------------------

-- Take up to p_limit eligible rows, with a lease and a new claim number, in the order of private.claim. Expired leases
-- are rescued first.
create function public.claim_tasks(
    p_worker_id text, p_lease_s double precision, p_limit bigint default 1, p_loaded_model text default null,
    p_task_types text[] default null, p_run_type text default null, p_max_attempts bigint default 3,
    p_affinity_tasks bigint default 8, p_affinity_wait_s double precision default 300
) returns jsonb
language plpgsql security definer set search_path = ''
as $$
declare
    v_person uuid := private.person();
begin
    perform private.check_worker(p_worker_id, v_person);
    perform private.end_unreadable();
    perform private.rescue_expired(p_max_attempts, v_person);
    return (
        select coalesce(jsonb_agg(private.task_json(claimed)), '[]')
        from private.claim(row(p_worker_id, make_interval(secs => p_lease_s), p_loaded_model, false, p_task_types,
            p_run_type, v_person, null, p_affinity_tasks, make_interval(secs => p_affinity_wait_s), false),
            p_limit) as claimed);
end
$$;

-- A worker's name belongs to the person whose worker bore it first. The service may take any.
create function private.check_worker(p_worker_id text, p_person uuid) returns void
language plpgsql set search_path = ''
as $$
begin
    if coalesce(p_worker_id, '') = '' then
        raise exception 'every worker needs one' using errcode = 'PT400', column = 'worker_id';
    end if;
    if p_person is not null and exists (
        select from public.workers where id = p_worker_id and user_id is distinct from p_person) then
        raise exception 'worker % is somebody else''s; choose another name', p_worker_id
            using errcode = 'PT403', column = 'worker_id';
    end if;
end
$$;

-- Re-queue expired leases and end what can never run. Returns how many rows changed.
create function public.rescue_tasks(p_max_attempts bigint default 3) returns bigint
language plpgsql security definer set search_path = ''
as $$
begin
    return private.rescue_expired(p_max_attempts, private.person()) + private.end_stuck();
end
$$;

-- -- the claimed task's writes ------------------------------------------------------------------------------------

create function private.holds(p_task public.tasks, p_worker_id text, p_claim_number bigint) returns boolean
language sql stable set search_path = ''
as $$
    select coalesce(p_task.status = 'In Progress' and not p_task.waiting and p_task.worker_id = p_worker_id
        and p_task.claim_number = p_claim_number and private.may_use(p_task.project_id), false)
$$;

create function private.raise_stale(p_task_id uuid, p_worker_id text, p_claim_number bigint) returns void
language plpgsql set search_path = ''
as $$
declare
    v_task public.tasks;
    v_now text := 'is gone';
begin
    select * into v_task from public.tasks where id = p_task_id and private.may_use(project_id);
    if found then
        v_now := case
            when v_task.status <> 'In Progress' then format('is %s', v_task.status)
            when v_task.waiting then format('waits for its children (claim %s)', v_task.claim_number)
            else format('was claimed by %s (claim %s)', v_task.worker_id, v_task.claim_number) end;
    end if;
    raise exception 'task %: claim % of % is stale, the task %',
        p_task_id, coalesce(p_claim_number::text, 'without a number'), p_worker_id, v_now using errcode = 'PT409';
end
$$;

-- The row, locked, when the claim still holds it. Raises PT409.
create function private.claimed(p_task_id uuid, p_worker_id text, p_claim_number bigint) returns public.tasks
language plpgsql set search_path = ''
as $$
declare
    v_task public.tasks;
begin
    select * into v_task from public.tasks where id = p_task_id for update;
    if not private.holds(v_task, p_worker_id, p_claim_number) then
        perform private.raise_stale(p_task_id, p_worker_id, p_claim_number);
    end if;
    return v_task;
end
$$;

-- Extend the leases and the worker's row. p_claims: [{task_id, claim_number}], all that the worker knows of. Answers
-- {lost: [ids], cancel_requested: [ids]}; never raises PT409. A row that this worker claimed p_unknown_after_s seconds ago
-- and does not name goes back to the queue: the answer to that claim got lost. Null leaves such rows to their leases.
-- p_sample: how the worker is doing now.
create function public.worker_heartbeat(
    p_worker_id text, p_claims jsonb, p_lease_s double precision, p_current_model text default null,
    p_status text default 'active', p_metadata jsonb default '{}', p_logs jsonb default '[]',
    p_unknown_after_s double precision default 20, p_sample jsonb default null
) returns jsonb
language plpgsql security definer set search_path = ''
as $$
declare
    v_person uuid := private.person();
    v_answer jsonb;
begin
    perform private.check_worker(p_worker_id, v_person);
    perform private.release_unknown(p_worker_id, p_claims, make_interval(secs => p_unknown_after_s));
    perform private.beside_others();
    with given as (
        select private.id_of(entry ->> 'task_id', 'task_id') as id, (entry ->> 'claim_number')::bigint as claim_number
        from jsonb_array_elements(p_claims) as entry
    ), extended as (
        update public.tasks as task
        set lease_expires_at = clock_timestamp() + make_interval(secs => p_lease_s), updated_at = clock_timestamp()
        from given
        where task.id = given.id and private.holds(task, p_worker_id, given.claim_number)
        returning task.id, task.cancel_requested
    )
    select jsonb_build_object(
        'lost', coalesce(jsonb_agg(given.id) filter (where extended.id is null), '[]'),
        'cancel_requested', coalesce(jsonb_agg(given.id) filter (where extended.cancel_requested), '[]'))
    into v_answer from given left join extended using (id);
    perform private.see_worker(p_worker_id, v_person, p_status, p_current_model, p_metadata);
    if p_sample is not null then
        insert into public.worker_samples (worker_id, measured) values (p_worker_id, p_sample);
    end if;
    perform private.insert_logs(p_logs, p_worker_id);
    return v_answer;
end
$$;

create function private.see_worker(
    p_worker_id text, p_person uuid, p_status text, p_current_model text, p_metadata jsonb
) returns void
language sql set search_path = ''
as $$
    insert into public.workers as worker (id, user_id, status, last_heartbeat, current_model, metadata)
    values (p_worker_id, p_person, p_status, clock_timestamp(), p_current_model, p_metadata)
    on conflict (id) do update set user_id = excluded.user_id, status = excluded.status, last_heartbeat = excluded.last_heartbeat,
        current_model = excluded.current_model, metadata = worker.metadata || excluded.metadata
$$;

-- Entries: timestamp, level, message, task_id, metadata. One that cannot be read is left out, and so is the task_id of
-- a task that is not the caller's: its owner reads what is logged about it. Returns how many.
create function private.insert_logs(p_logs jsonb, p_worker_id text, p_source_type text default 'worker') returns bigint
language plpgsql set search_path = ''
as $$
declare
    v_log jsonb;
    v_count bigint := 0;
begin
    for v_log in select entry from jsonb_array_elements(p_logs) as entry loop
        begin
            insert into public.system_logs (
                timestamp, source_type, source_id, log_level, message, task_id, worker_id, cycle_number, metadata)
            values (coalesce((v_log ->> 'timestamp')::timestamptz, clock_timestamp()),
                coalesce(v_log ->> 'source_type', p_source_type), coalesce(v_log ->> 'source_id', p_worker_id),
                upper(coalesce(v_log ->> 'log_level', v_log ->> 'level', 'INFO')), coalesce(v_log ->> 'message', ''),
                case when private.is_service() then (v_log ->> 'task_id')::uuid else (
                    select id from public.tasks
                    where id = (v_log ->> 'task_id')::uuid and private.may_use(project_id)) end,
                coalesce(p_worker_id, v_log ->> 'worker_id'),
                (v_log ->> 'cycle_number')::bigint, coalesce(v_log -> 'metadata', '{}'));
            v_count := v_count + 1;
        exception when data_exception then
            null;
        end;
    end loop;
    return v_count;
end
$$;

-- Stamp generation_started_at with now: what is billed begins here, after loading.
create function public.generation_started(p_task_id uuid, p_worker_id text, p_claim_number bigint) returns void
language plpgsql security definer set search_path = ''
as $$
begin
    perform private.claimed(p_task_id, p_worker_id, p_claim_number);
    update public.tasks set generation_started_at = clock_timestamp(), updated_at = clock_timestamp()
    where id = p_task_id;
    perform private.record(p_task_id, 'started', p_worker_id, p_claim_number);
end
$$;

-- Store the progress; with p_event, add that to the timeline. Returns true when a cancel was asked for.
create function public.task_progress(
    p_task_id uuid, p_worker_id text, p_claim_number bigint, p_progress jsonb, p_event text default null
) returns boolean
language plpgsql security definer set search_path = ''
as $$
declare
    v_task public.tasks := private.claimed(p_task_id, p_worker_id, p_claim_number);
begin
    update public.tasks set progress = p_progress, updated_at = clock_timestamp() where id = p_task_id;
    if p_event is not null then
        perform private.record(p_task_id, p_event, p_worker_id, p_claim_number);
    end if;
    return v_task.cancel_requested;
end
$$;

-- Add an entry to the timeline.
create function public.task_note(
    p_task_id uuid, p_worker_id text, p_claim_number bigint, p_name text, p_detail text
) returns void
language plpgsql security definer set search_path = ''
as $$
begin
    perform private.claimed(p_task_id, p_worker_id, p_claim_number);
    perform private.record(p_task_id, p_name, p_worker_id, p_claim_number, p_detail);
end
$$;

-- Insert the children that do not exist yet (as add_tasks does; each with parent_id and child_key) and let the parent
-- wait for them. When every child has ended already, the parent ends here too. Repeating it changes nothing.
create function public.fan_out_task(
    p_task_id uuid, p_worker_id text, p_claim_number bigint, p_children jsonb, p_final_child uuid
) returns jsonb
language plpgsql security definer set search_path = ''
as $$
declare
    v_task public.tasks;
    v_added uuid[];
begin
    perform private.alone();
    perform private.check_children(p_task_id, p_children);
    select * into v_task from public.tasks where id = p_task_id for update;
    if not private.holds(v_task, p_worker_id, p_claim_number) then
        if private.fanned_out_by(v_task, p_worker_id, p_claim_number, p_children) then
            return (select jsonb_agg(child -> 'id' order by place)
                    from jsonb_array_elements(p_children) with ordinality as listed (child, place));
        end if;
        perform private.raise_stale(p_task_id, p_worker_id, p_claim_number);
    end if;
    v_added := private.insert_tasks(p_children);
    if not exists (select from public.tasks where id = p_final_child and parent_id = p_task_id) then
        raise exception '% is not one of the children', p_final_child using errcode = 'PT400', column = 'final_child';
    end if;
    update public.tasks set waiting = true, lease_expires_at = null, unfenced = false, updated_at = clock_timestamp(),
        result_data = jsonb_build_object('final_child', p_final_child)
    where id = p_task_id;
    perform private.record(p_task_id, 'fanned_out', p_worker_id, p_claim_number,
        format('%s children', cardinality(v_added)));
    if v_task.cancel_requested then
        perform private.cancel(p_task_id);
    end if;
    if private.end_parent(p_task_id) then
        perform private.settle(array[p_task_id]);
    end if;
    return to_jsonb(v_added);
end
$$;

create function private.check_children(p_parent_id uuid, p_children jsonb) returns void
language plpgsql set search_path = ''
as $$
declare
    v_child jsonb;
    v_foreign public.tasks;
begin
    if jsonb_typeof(p_children) is distinct from 'array' then
        raise exception 'must be an array of tasks' using errcode = 'PT400', column = 'children';
    end if;
    for v_child in select child from jsonb_array_elements(p_children) as child loop
        if private.id_of(v_child ->> 'parent_id', 'parent_id') is distinct from p_parent_id
            or coalesce(v_child ->> 'child_key', '') = '' then
            raise exception '% % is not a child of % with a key', v_child ->> 'task_type', v_child ->> 'id', p_parent_id
                using errcode = 'PT400', column = 'children';
        end if;
        select * into v_foreign from public.tasks
        where id = private.id_of(v_child ->> 'id', 'id') and parent_id is distinct from p_parent_id;
        if found then
            raise exception 'task % exists already and belongs to %',
                v_foreign.id, coalesce(v_foreign.parent_id::text, 'no parent')
                using errcode = 'PT400', column = 'children';
        end if;
    end loop;
end
$$;

create function private.fanned_out_by(
    p_task public.tasks, p_worker_id text, p_claim_number bigint, p_children jsonb
) returns boolean
language sql stable set search_path = ''
as $$
    select coalesce(p_task.worker_id = p_worker_id and p_task.claim_number = p_claim_number
        and private.may_use(p_task.project_id) and jsonb_array_length(p_children) > 0
        and not exists (
            select from jsonb_array_elements(p_children) as child
            where not exists (select from public.tasks
                              where id = (child ->> 'id')::uuid and parent_id = p_task.id)), false)
$$;

-- Complete the row and store the output. Returns false when this claim had completed it before: nothing changes then.
-- A client of the older contract gives no claim number, see private.held.
create function public.complete_task(
    p_task_id uuid, p_worker_id text, p_claim_number bigint, p_output_location text, p_result_data jsonb default null
) returns boolean
language plpgsql security definer set search_path = ''
as $$
declare
    v_task public.tasks;
begin
    if exists (select from public.tasks
               where id = p_task_id and (parent_id is not null or orchestrator_id is not null)) then
        perform private.alone();
    end if;
    select * into v_task from public.tasks where id = p_task_id for update;
    if private.completed_by(v_task, p_worker_id, p_claim_number) then
        return false;
    end if;
    v_task := private.held(p_task_id, p_worker_id, p_claim_number);
    perform private.complete_row(p_task_id, p_output_location, p_result_data);
    perform private.settle(array[p_task_id]);
    return true;
end
$$;

create function private.completed_by(p_task public.tasks, p_worker_id text, p_claim_number bigint) returns boolean
language sql stable set search_path = ''
as $$
    select coalesce(p_task.status = 'Complete' and private.may_use(p_task.project_id)
        and case when p_claim_number is null then p_task.unfenced and coalesce(p_worker_id = p_task.worker_id, true)
            else p_task.worker_id = p_worker_id and p_task.claim_number = p_claim_number end, false)
$$;

-- End the row as Failed; dependants fail with it. Returns the status now: Cancelled when that had been asked for.
create function public.fail_task(
    p_task_id uuid, p_worker_id text, p_claim_number bigint, p_message text, p_error_class text
) returns public.task_status
language plpgsql security definer set search_path = ''
as $$
begin
    perform private.alone();
    return private.fail(private.claimed(p_task_id, p_worker_id, p_claim_number), p_message, p_error_class);
end
$$;

-- Queued again with attempts + 1 after p_delay_s; Failed when that was the last attempt. Returns the status now.
create function public.retry_task_later(
    p_task_id uuid, p_worker_id text, p_claim_number bigint, p_message text, p_error_class text,
    p_delay_s double precision, p_max_attempts bigint default 3
) returns public.task_status
language plpgsql security definer set search_path = ''
as $$
declare
    v_task public.tasks;
begin
    perform private.alone();
    v_task := private.claimed(p_task_id, p_worker_id, p_claim_number);
    if v_task.attempts + 1 >= p_max_attempts then
        return private.fail(v_task, p_message, p_error_class);
    end if;
    return private.requeue(v_task, 'retry', 1, make_interval(secs => p_delay_s), p_message, p_error_class);
end
$$;

-- Queued again without burning an attempt (shutdown). Returns the status now.
create function public.release_task(p_task_id uuid, p_worker_id text, p_claim_number bigint)
returns public.task_status
language plpgsql security definer set search_path = ''
as $$
begin
    perform private.alone();
    return private.requeue(private.claimed(p_task_id, p_worker_id, p_claim_number), 'released');
end
$$;

-- The worker stopped on request: the row becomes Cancelled, and its dependants with it.
create function public.task_cancelled(p_task_id uuid, p_worker_id text, p_claim_number bigint) returns void
language plpgsql security definer set search_path = ''
as $$
begin
    perform private.alone();
    perform private.claimed(p_task_id, p_worker_id, p_claim_number);
    perform private.settle(private.end_tasks(array[p_task_id], 'Cancelled'));
end
$$;
