-- How rows end, and what ends or starts again with them. All inside the caller's transaction.

set lock_timeout = '10s';
set statement_timeout = '5min';

-- Whatever may change several rows because of one runs alone, and takes this lock before it locks any row: cascades
-- neither miss a row that is just being added nor wait for each other in a circle. What changes one row of its own
-- (claims, progress, completing a row without a parent) does not take it.
create function private.alone() returns void
language sql set search_path = ''
as $$
    select pg_advisory_xact_lock(1464030791, 1)
$$;

-- Together with others of its kind, but not with what runs alone.
create function private.beside_others() returns void
language sql set search_path = ''
as $$
    select pg_advisory_xact_lock_shared(1464030791, 1)
$$;

-- -- ending -------------------------------------------------------------------------------------------------------

-- End those of the rows that are not terminal as Failed or Cancelled. Returns their ids; `settle` them next.
create function private.end_tasks(
    p_ids uuid[], p_status public.task_status, p_message text default null, p_error_class text default null
) returns uuid[]
language sql set search_path = ''
as $$
    with ended as (
        update public.tasks set status = p_status, error_message = p_message, error_class = p_error_class,
            run_after = null, generation_processed_at = clock_timestamp(), updated_at = clock_timestamp()
        where id = any (p_ids) and status in ('Queued', 'In Progress')
        returning id, worker_id, claim_number
    ), recorded as (
        insert into public.task_events (task_id, name, worker_id, claim_number, detail)
        select id, lower(p_status::text), worker_id, claim_number, left(p_message, 500) from ended
    )
    select coalesce(array_agg(id), '{}') from ended
$$;

-- Complete the row; `settle` it next.
create function private.complete_row(p_task_id uuid, p_output_location text, p_result_data jsonb) returns void
language plpgsql set search_path = ''
as $$
declare
    v_task public.tasks;
begin
    update public.tasks set status = 'Complete', output_location = p_output_location, result_data = p_result_data,
        -- front ends of the older contract look for the picture there
        params = params || jsonb_strip_nulls(jsonb_build_object('thumbnail_url', p_result_data ->> 'thumbnail_url')),
        error_message = null, error_class = null, generation_processed_at = clock_timestamp(),
        updated_at = clock_timestamp()
    where id = p_task_id returning * into v_task;
    perform private.record(p_task_id, 'complete', v_task.worker_id, v_task.claim_number, p_output_location);
    if p_output_location is not null then
        insert into public.generations (task_id, parent_task_id, project_id, type, location, thumbnail_url)
        select p_task_id, v_task.parent_id, v_task.project_id,
            (select content_type from public.task_types where name = v_task.task_type),
            p_output_location, p_result_data ->> 'thumbnail_url'
        on conflict (task_id) do nothing;
    end if;
end
$$;

-- End what ends with the rows: the queued dependants and children of those that failed or were cancelled, and each
-- waiting parent whose last child this was. Of orchestrators of the older contract, the running children whose worker can
-- be asked are asked to stop. Returns how many rows ended. One statement for all that follows a
-- cause: a chain of 5,000 rows ends within the time that a hosted project lets a statement run.
create function private.settle(p_ended uuid[]) returns bigint
language plpgsql set search_path = ''
as $$
declare
    v_pending uuid[] := p_ended;
    v_ended uuid[];
    v_cause public.tasks;
    v_count bigint := -cardinality(p_ended);
begin
    loop
        v_ended := v_pending;
        for v_cause in
            select cause.* from unnest(v_pending) with ordinality as listed (id, place)
            join public.tasks as cause on cause.id = listed.id
            where cause.status in ('Failed', 'Cancelled') and exists (select from private.followers(cause.id))
            order by place
        loop
            v_ended := v_ended || private.end_with(v_cause, 'dependency') || private.end_with(v_cause, 'parent');
        end loop;
        perform private.ask_to_stop(array(
            select child.id from public.tasks as child join public.tasks as cause on cause.id = child.orchestrator_id
            where cause.id = any (v_ended) and cause.status in ('Failed', 'Cancelled')
                and child.status = 'In Progress'));
        v_count := v_count + cardinality(v_ended);
        v_pending := private.end_parents(v_ended);
        exit when v_pending = '{}';
    end loop;
    return v_count;
end
$$;

create function private.reason(p_cause public.tasks, p_relation text) returns text
language sql immutable set search_path = ''
as $$
    select format('Not run, because %s %s, %s, %s', p_cause.task_type, p_cause.id,
        case p_relation when 'dependency' then 'on which it depends' else 'its parent' end,
        case p_cause.status when 'Failed' then 'failed' else 'was cancelled' end)
        || coalesce(': ' || p_cause.error_message, '')
$$;

-- What ends with a row that failed or was cancelled: its queued dependants and children, and of an orchestrator of the
-- older contract also the running children whose worker cannot be asked to stop.
create function private.followers(p_id uuid) returns table (id uuid, relation text)
language sql stable set search_path = ''
as $$
    select id, 'dependency' from public.tasks
    where dependant_on @> array[p_id] and dependant_on <> '{}' and status = 'Queued'
    union all
    select id, 'parent' from public.tasks where parent_id = p_id and status = 'Queued'
    union all
    select id, 'parent' from public.tasks
    where orchestrator_id = p_id and status in ('Queued', 'In Progress') and (status = 'Queued' or unfenced)
$$;

-- End all that follows `p_cause` because of its dependants, or because of its children, with their followers and so on:
-- along a chain every row names the first cause. Returns the ids of what ended.
create function private.end_with(p_cause public.tasks, p_relation text) returns uuid[]
language plpgsql set search_path = '' set jit = off
as $$
declare
    v_dependants uuid[];
    v_children uuid[];
    v_reason text := private.reason(p_cause, p_relation);
begin
    with recursive reached (id, relation) as (
        select id, relation from private.followers(p_cause.id) where relation = p_relation
        union
        select found.id, found.relation from reached, lateral private.followers(reached.id) as found
    )
    select coalesce(array_agg(id) filter (where relation = 'dependency'), '{}'),
        coalesce(array_agg(id) filter (where relation = 'parent'), '{}')
    into v_dependants, v_children from reached;
    return private.end_tasks(v_dependants, p_cause.status, v_reason, 'dependency')
        || private.end_tasks(v_children, p_cause.status, v_reason, 'parent');
end
$$;

-- End the waiting parents and orchestrators of rows that ended, where those were the last. Returns which; `settle` them.
create function private.end_parents(p_ended uuid[]) returns uuid[]
language plpgsql set search_path = ''
as $$
declare
    v_parent record;
    v_ended uuid[] := '{}';
begin
    for v_parent in
        select distinct parent_id, orchestrator_id from public.tasks
        where id = any (p_ended) and (parent_id is not null or orchestrator_id is not null)
    loop
        if private.end_parent(v_parent.parent_id) then
            v_ended := v_ended || v_parent.parent_id;
        elsif private.end_orchestrator(v_parent.orchestrator_id) then
            v_ended := v_ended || v_parent.orchestrator_id;
        end if;
    end loop;
    return v_ended;
end
$$;

-- End a waiting parent that has no open child left; false when it is not one. `settle` it next.
create function private.end_parent(p_parent_id uuid) returns boolean
language plpgsql set search_path = ''
as $$
declare
    v_parent public.tasks;
    v_child public.tasks;
    v_named text;
begin
    select * into v_parent from public.tasks
    where id = p_parent_id and status = 'In Progress' and waiting and not unfenced for update;
    if not found or exists (
        select from public.tasks where parent_id = p_parent_id and status in ('Queued', 'In Progress')) then
        return false;
    end if;
    -- the first failure; what only followed another comes after it
    select * into v_child from public.tasks where parent_id = p_parent_id and status in ('Failed', 'Cancelled')
    order by status = 'Cancelled', generation_processed_at, error_class is not distinct from 'dependency', seq limit 1;
    v_named := format('child %s (%s)', coalesce(v_child.child_key, v_child.task_type), v_child.id);
    if v_parent.cancel_requested then
        perform private.end_tasks(array[p_parent_id], 'Cancelled');
    elsif v_child.id is null then
        perform private.complete_parent(v_parent);
    elsif v_child.status = 'Failed' then
        perform private.end_tasks(array[p_parent_id], 'Failed',
            format('%s failed: %s', v_named, coalesce(v_child.error_message, 'no reason was given')),
            v_child.error_class);
    else
        perform private.end_tasks(array[p_parent_id], 'Cancelled', format('%s was cancelled', v_named));
    end if;
    return true;
end
$$;

-- The final child's output becomes the parent's.
create function private.complete_parent(p_parent public.tasks) returns void
language plpgsql set search_path = ''
as $$
declare
    v_final public.tasks;
begin
    select * into v_final from public.tasks
    where id::text = p_parent.result_data ->> 'final_child' and parent_id = p_parent.id;
    if not found then
        perform private.end_tasks(array[p_parent.id], 'Failed',
            format('its final child %s is gone from the table, and its output with it',
                p_parent.result_data ->> 'final_child'),
            'internal');
    else
        perform private.complete_row(p_parent.id, v_final.output_location, v_final.result_data);
    end if;
end
$$;

-- -- cancelling ---------------------------------------------------------------------------------------------------

-- Ask the workers of the running rows to stop. Those of clients of the older contract would not hear of it.
create function private.ask_to_stop(p_ids uuid[]) returns void
language sql set search_path = ''
as $$
    with asked as (
        update public.tasks set cancel_requested = true, updated_at = clock_timestamp()
        where id = any (p_ids) and status = 'In Progress' and not unfenced and not cancel_requested returning id
    )
    insert into public.task_events (task_id, name) select id, 'cancel_requested' from asked
$$;

-- The row and its open descendants, those of the older contract among them.
create function private.open_subtree(p_task_id uuid) returns uuid[]
language sql stable set search_path = ''
as $$
    with recursive subtree (id) as (
        select p_task_id
        union
        select child.id from subtree, lateral (
            select id from public.tasks where parent_id = subtree.id and status in ('Queued', 'In Progress')
            union all
            select id from public.tasks where orchestrator_id = subtree.id and status in ('Queued', 'In Progress')
        ) as child
    )
    select array_agg(id) from subtree
$$;

-- Cancel the row and its open descendants: queued ones end here, and so do those of clients of the older contract,
-- whose later writes are refused; other running ones are asked to stop.
create function private.cancel(p_task_id uuid) returns void
language plpgsql set search_path = ''
as $$
declare
    v_open uuid[] := private.open_subtree(p_task_id);
begin
    perform private.ask_to_stop(v_open);
    select coalesce(array_agg(id), '{}') into v_open from public.tasks
    where id = any (v_open) and (status = 'Queued' or (status = 'In Progress' and unfenced));
    perform private.settle(private.end_tasks(v_open, 'Cancelled'));
end
$$;

-- -- circles ------------------------------------------------------------------------------------------------------

-- The open row that waits for itself, through its dependencies, and as a parent through its children: the way round as
-- 'a -> b -> a'.
create function private.circle_through(p_start uuid) returns text
language plpgsql stable set search_path = ''
as $$
declare
    v_before jsonb := '{}';
    v_frontier uuid[] := array[p_start];
    v_next uuid[];
    v_edge record;
    v_way text;
    v_id text;
begin
    loop
        v_next := '{}';
        for v_edge in
            select waiter.id as waiter, needed.id as needed
            from unnest(v_frontier) as waiter (id), lateral private.waits_for(waiter.id) as needed (id)
        loop
            if v_edge.needed = p_start then
                v_way := p_start::text;
                v_id := v_edge.waiter::text;
                while v_id is not null loop
                    v_way := v_id || ' -> ' || v_way;
                    v_id := v_before ->> v_id;
                end loop;
                return v_way;
            end if;
            if not v_before ? v_edge.needed::text then
                v_before := v_before || jsonb_build_object(v_edge.needed::text, v_edge.waiter::text);
                v_next := v_next || v_edge.needed;
            end if;
        end loop;
        v_frontier := v_next;
    end loop;
end
$$;

create function private.waits_for(p_id uuid) returns setof uuid
language sql stable set search_path = ''
as $$
    select unnest(dependant_on) from public.tasks where id = p_id and status in ('Queued', 'In Progress')
    union all
    select id from public.tasks where parent_id = p_id and status in ('Queued', 'In Progress')
$$;

-- One of the rows that wait for themselves, among all that the given ones wait for; null when there is none. Takes away
-- the rows that wait for none of the others, again and again: each row and each edge is looked at once, however long the
-- chains are. Rows are numbers here, places in v_ids; who waits for row n stands in v_waiters from v_first[n] on.
create function private.on_a_circle(p_starts uuid[]) returns uuid
language plpgsql stable set search_path = '' set jit = off
as $$
declare
    v_ids uuid[];
    v_waiters bigint[];
    v_first bigint[];
    v_last bigint[];
    -- for how many others each waits
    v_open bigint[];
    v_free bigint[];
    v_next bigint[];
    v_place bigint := 0;
    v_row bigint;
    v_waiter bigint;
begin
    with recursive reached (id) as (
        select unnest(p_starts)
        union
        select needed.id from reached, lateral (
            select unnest(dependant_on) from public.tasks where id = reached.id and status in ('Queued', 'In Progress')
            union all
            select id from public.tasks where parent_id = reached.id and status in ('Queued', 'In Progress')
        ) as needed (id)
    ), listed as (
        select id, row_number() over () as row from reached
    ), edge as (
        select waiter.row as waiter, found.row as needed from listed as waiter, lateral (
            select unnest(dependant_on) from public.tasks where id = waiter.id and status in ('Queued', 'In Progress')
            union all
            select id from public.tasks where parent_id = waiter.id and status in ('Queued', 'In Progress')
        ) as needed (id) join listed as found on found.id = needed.id
    ), counted as (
        select listed.id, listed.row, coalesce(as_waiter.count, 0) as open,
            sum(coalesce(as_needed.count, 0)) over (order by listed.row)::bigint as last,
            coalesce(as_needed.count, 0) as waiters
        from listed
        left join (select waiter, count(*) from edge group by 1) as as_waiter on as_waiter.waiter = listed.row
        left join (select needed, count(*) from edge group by 1) as as_needed on as_needed.needed = listed.row
    )
    select array_agg(id order by row), array_agg(open order by row), array_agg(last - waiters + 1 order by row),
        array_agg(last order by row), coalesce(array_agg(row) filter (where open = 0), '{}'),
        (select array_agg(waiter order by needed) from edge)
    into v_ids, v_open, v_first, v_last, v_free, v_waiters from counted;
    while v_place < cardinality(v_free) loop
        v_place := v_place + 1;
        for v_edge in v_first[v_free[v_place]]..v_last[v_free[v_place]] loop
            v_waiter := v_waiters[v_edge];
            v_open[v_waiter] := v_open[v_waiter] - 1;
            if v_open[v_waiter] = 0 then
                v_free := v_free || v_waiter;
            end if;
        end loop;
    end loop;
    if cardinality(v_free) = coalesce(cardinality(v_ids), 0) then
        return null;
    end if;
    -- each that is left waits for another that is left: whoever goes on for long enough is on a circle
    v_next := array_fill(0::bigint, array[cardinality(v_ids)]);
    for v_needed in 1..cardinality(v_ids) loop
        continue when v_open[v_needed] = 0;
        v_row := v_needed;
        for v_edge in v_first[v_needed]..v_last[v_needed] loop
            v_next[v_waiters[v_edge]] := v_needed;
        end loop;
    end loop;
    for v_step in 1..cardinality(v_ids) loop
        v_row := v_next[v_row];
    end loop;
    return v_ids[v_row];
end
$$;
