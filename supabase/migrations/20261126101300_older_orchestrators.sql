-- Orchestrators of the older contract. Their worker inserts the children, one by one and tied by their params only
-- (tasks.orchestrator_id), says "In Progress" with a text, and leaves the rest to the server: an orchestrator ends when
-- its children end. Everything here runs alone (private.alone).

set lock_timeout = '10s';
set statement_timeout = '5min';

-- How many segments or joins it makes; null when its params do not say.
create function private.expected_parts(p_params jsonb) returns bigint
language sql immutable set search_path = ''
as $$
    select case
        when jsonb_typeof(details -> 'num_new_segments_to_generate') = 'number'
            then least((details ->> 'num_new_segments_to_generate')::numeric, 1000000)::bigint
        when jsonb_typeof(details -> 'clip_list') = 'array'
            -- with loop_first_clip: the first clip and its reverse
            then case when details -> 'loop_first_clip' = 'true' then 1
                else jsonb_array_length(details -> 'clip_list') - 1 end
        when jsonb_typeof(coalesce(details -> 'num_joins', p_params -> 'num_joins')) = 'number'
            then least(coalesce(details ->> 'num_joins', p_params ->> 'num_joins')::numeric, 1000000)::bigint
        end
    from (select p_params -> 'orchestrator_details') as given (details)
$$;

-- The children of an orchestrator. Those with the same part are duplicates: a crashed worker inserted them again.
create view private.parts as
select child.orchestrator_id, child.id, child.task_type, child.status, child.created_at, child.seq,
    child.task_type in ('travel_segment', 'join_clips_segment', 'join_clips') as is_segment,
    child.task_type in ('travel_stitch', 'join_final_stitch') as is_final,
    coalesce(child.params ->> 'segment_index', child.params ->> 'join_index') as place,
    case when child.task_type in ('travel_segment', 'join_clips_segment', 'join_clips')
            then coalesce(child.params ->> 'segment_index', child.params ->> 'join_index', child.id::text)
        when child.task_type in ('travel_stitch', 'join_final_stitch') then 'final'
        else child.id::text end as part
from public.tasks as child where child.orchestrator_id is not null;

-- Whether the children that it makes are there.
create function private.has_its_parts(p_task public.tasks) returns boolean
language sql stable set search_path = ''
as $$
    select count(*) > 0
        and count(distinct part) filter (where is_segment) >= coalesce(private.expected_parts(p_task.params), 0)
    from private.parts where orchestrator_id = p_task.id
$$;

-- Let an orchestrator whose children are there wait for them, without a lease: nobody has to hold it any more, and it
-- is not run again while they work. False when there is nothing to wait for.
create function private.await_children(p_task public.tasks) returns boolean
language plpgsql set search_path = ''
as $$
begin
    if p_task.waiting or not p_task.unfenced or not private.is_orchestrator(p_task.task_type)
        or not private.has_its_parts(p_task) then
        return false;
    end if;
    update public.tasks set waiting = true, lease_expires_at = null, updated_at = clock_timestamp()
    where id = p_task.id;
    perform private.record(p_task.id, 'fanned_out', p_task.worker_id, p_task.claim_number);
    if private.end_orchestrator(p_task.id) then
        perform private.settle(array[p_task.id]);
    end if;
    return true;
end
$$;

-- End a waiting orchestrator: with the first part that failed or was cancelled, or when all parts are there and
-- Complete. False when it goes on waiting. `settle` it next.
create function private.end_orchestrator(p_id uuid) returns boolean
language plpgsql set search_path = ''
as $$
declare
    v_task public.tasks;
    v_child public.tasks;
begin
    select * into v_task from public.tasks
    where id = p_id and status = 'In Progress' and waiting and unfenced for update;
    if not found then
        return false;
    end if;
    -- a part that has another row, which is open or Complete, has not failed
    select child.* into v_child from public.tasks as child join private.parts as failed on failed.id = child.id
    where failed.orchestrator_id = p_id and failed.status in ('Failed', 'Cancelled') and not exists (
        select from private.parts as twin
        where twin.orchestrator_id = p_id and twin.part = failed.part and twin.status not in ('Failed', 'Cancelled'))
    order by child.status = 'Cancelled', child.generation_processed_at, child.seq limit 1;
    if found then
        perform private.end_tasks(array[p_id], v_child.status, format('child %s (%s) %s', v_child.task_type, v_child.id,
                case v_child.status when 'Failed'
                    then 'failed: ' || coalesce(v_child.error_message, 'no reason was given')
                    else 'was cancelled' end), v_child.error_class);
        return true;
    end if;
    if not private.has_its_parts(v_task) or exists (
        select from private.parts where orchestrator_id = p_id
        group by part having not bool_or(status = 'Complete')) then
        return false;
    end if;
    perform private.complete_orchestrator(p_id);
    return true;
end
$$;

-- The output is that of the final child, or else of the last segment; the time begins with the first child.
create function private.complete_orchestrator(p_id uuid) returns void
language plpgsql set search_path = ''
as $$
declare
    v_last public.tasks;
begin
    select child.* into v_last from public.tasks as child join private.parts as part on part.id = child.id
    where part.orchestrator_id = p_id and part.status = 'Complete'
    order by part.is_final desc, part.is_segment desc,
        case when part.place ~ '^[0-9]{1,9}$' then part.place::bigint end desc nulls last, part.seq desc limit 1;
    update public.tasks set generation_started_at = coalesce(
        (select min(generation_started_at) from public.tasks where orchestrator_id = p_id), generation_started_at)
    where id = p_id;
    perform private.complete_row(p_id, v_last.output_location, v_last.result_data);
end
$$;

-- An orchestrator that waits for nothing: end it, or queue it again when children are gone from the table. Returns how
-- many rows ended with it.
create function private.end_or_rerun(p_id uuid) returns bigint
language plpgsql set search_path = ''
as $$
declare
    v_task public.tasks;
begin
    if private.end_orchestrator(p_id) then
        return private.settle(array[p_id]);
    end if;
    select * into v_task from public.tasks where id = p_id for update;
    if v_task.attempts + 1 < 3 then
        perform private.requeue(v_task, 'rescued', 1, null, 'children of it are missing', 'internal');
    else
        perform private.fail(v_task, 'children of it are missing, and its worker does not make them', 'internal');
    end if;
    return 0;
end
$$;

-- -- for get-orchestrator-children --------------------------------------------------------------------------------

-- The children of both contracts, oldest first.
create function public.orchestrator_children(p_orchestrator_task_id uuid) returns jsonb
language sql stable set search_path = ''
as $$
    select coalesce(jsonb_agg(private.task_json(task) order by task.created_at, task.seq), '[]')
    from (
        select * from public.tasks where parent_id = p_orchestrator_task_id
        union all
        select * from public.tasks where orchestrator_id = p_orchestrator_task_id
    ) as task
$$;

revoke all on private.parts from public, anon, authenticated, service_role;
select private.open_to('{orchestrator_children}', '{}');
