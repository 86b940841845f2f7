-- Cascades in few statements, however many rows they end or start again: one for all that follow a cause, instead of
-- several for each row. A chain of 5,000 rows took longer than a hosted project lets a statement run, so it could be
-- neither cancelled nor retried.

set lock_timeout = '10s';
set statement_timeout = '5min';

-- squawk-ignore ban-drop-function
drop function private.follow(public.tasks, text, text);

-- End what ends with the rows: the queued dependants and children of those that failed or were cancelled, and each
-- waiting parent whose last child this was. Of orchestrators of the older contract, the running children whose worker can
-- be asked are asked to stop. Returns how many rows ended.
create or replace function private.settle(p_ended uuid[]) returns bigint
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

-- Queue a failed row again, with its failed descendants and all that failed because of any of them.
create or replace function private.retry(p_task_id uuid) returns void
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

select private.open_to('{}', '{}');
