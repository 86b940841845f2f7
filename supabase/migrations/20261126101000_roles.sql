-- Who may do what. Supabase grants everything on new tables and functions to its roles; all of that is taken back first.
--   anon            nothing
--   authenticated   a person (user JWT, or a personal access token that an Edge Function has checked): their own rows
--   service_role    workers of the service and Edge Functions: everything

set lock_timeout = '10s';
set statement_timeout = '5min';

-- -- tables -------------------------------------------------------------------------------------------------------

revoke all on public.users, public.projects, public.user_api_tokens, public.task_types, public.workers, public.tasks,
    public.task_events, public.generations, public.system_logs from public, anon, authenticated, service_role;

grant select, insert, update, delete on public.users, public.projects, public.user_api_tokens, public.task_types,
    public.workers, public.tasks, public.task_events, public.generations, public.system_logs to service_role;

-- Columns that a person may write. Never status, claims, credits, limits: those belong to functions and to the service.
grant select on public.users, public.projects, public.task_types, public.workers, public.tasks, public.task_events,
    public.generations, public.system_logs to authenticated;
grant insert (id, settings), update (settings) on public.users to authenticated;
grant insert (id, user_id, name), update (name) on public.projects to authenticated;
grant insert (id, task_type, params, project_id, dependant_on, priority, run_after, paused),
    update (paused, run_after) on public.tasks to authenticated;

alter table public.users enable row level security;
alter table public.projects enable row level security;
alter table public.user_api_tokens enable row level security;
alter table public.task_types enable row level security;
alter table public.workers enable row level security;
alter table public.tasks enable row level security;
alter table public.task_events enable row level security;
alter table public.generations enable row level security;
alter table public.system_logs enable row level security;

create policy service on public.users to service_role using (true) with check (true);
create policy service on public.projects to service_role using (true) with check (true);
create policy service on public.user_api_tokens to service_role using (true) with check (true);
create policy service on public.task_types to service_role using (true) with check (true);
create policy service on public.workers to service_role using (true) with check (true);
create policy service on public.tasks to service_role using (true) with check (true);
create policy service on public.task_events to service_role using (true) with check (true);
create policy service on public.generations to service_role using (true) with check (true);
create policy service on public.system_logs to service_role using (true) with check (true);

-- `(select auth.uid())` is asked once a statement, not once a row.
create policy own on public.users to authenticated
    using (id = (select auth.uid())) with check (id = (select auth.uid()));
create policy own on public.projects to authenticated
    using (user_id = (select auth.uid())) with check (user_id = (select auth.uid()));
create policy own on public.tasks to authenticated
    using (project_id in (select id from public.projects where user_id = (select auth.uid())))
    with check (project_id in (select id from public.projects where user_id = (select auth.uid())));
create policy own on public.generations for select to authenticated
    using (project_id in (select id from public.projects where user_id = (select auth.uid())));
create policy own on public.workers for select to authenticated using (user_id = (select auth.uid()));
create policy own on public.task_events for select to authenticated
    using (exists (select from public.tasks where tasks.id = task_events.task_id));
create policy own on public.system_logs for select to authenticated
    using (exists (select from public.tasks where tasks.id = system_logs.task_id));
create policy everybody on public.task_types for select to authenticated using (true);
-- user_api_tokens: no policy but the service's

-- -- functions ----------------------------------------------------------------------------------------------------

revoke all on all functions in schema private from public, anon, authenticated, service_role;
revoke all on all tables in schema private from public, anon, authenticated, service_role;
-- What functions and triggers that run with their caller's rights are made of.
grant usage on schema private to authenticated, service_role;
grant execute on function private.iso(timestamptz), private.task_json(public.tasks), private.model_of(jsonb),
    private.is_orchestrator(text), private.owner_of(uuid), private.orchestrator_of(jsonb, uuid),
    private.distinct_ids(uuid[]), private.hash_of(text), private.check_json(jsonb, text),
    private.check_dependencies_are_own(uuid[]) to authenticated, service_role;

-- Let people and the service, or the service alone, call functions of the API, and nobody else; what was added to the
-- schema private is closed again. Each migration that adds functions ends with it.
create function private.open_to(p_people text[], p_service text[]) returns void
language plpgsql set search_path = ''
as $$
declare
    v_function record;
begin
    revoke all on all functions in schema private from public, anon;
    for v_function in
        select oid::regprocedure as signature, proname from pg_catalog.pg_proc
        where pronamespace = 'public'::regnamespace and proname = any (p_people || p_service)
    loop
        execute format('revoke all on function %s from public, anon, authenticated, service_role', v_function.signature);
        execute format('grant execute on function %s to service_role', v_function.signature);
        if v_function.proname = any (p_people) then
            execute format('grant execute on function %s to authenticated', v_function.signature);
        end if;
    end loop;
end
$$;

select private.open_to(
    '{add_tasks,get_task,list_tasks,task_children,task_dependencies,task_timeline,count_tasks,list_workers,open_tasks,
        claim_tasks,rescue_tasks,worker_heartbeat,generation_started,task_progress,task_note,fan_out_task,complete_task,
        fail_task,retry_task_later,release_task,task_cancelled,cancel_task,retry_task,create_api_token,
        revoke_api_token,claim_next_task_user_pat,func_update_task_status,safe_update_task_status,
        all_dependencies_complete,get_task_model,get_task_run_type,count_eligible_tasks_user_pat}',
    '{user_of_token,claim_next_task_service_role,func_worker_heartbeat_with_logs,func_insert_logs_batch,
        func_cleanup_old_logs,count_eligible_tasks_service_role,count_queued_tasks_breakdown_service_role,
        per_user_capacity_stats_service_role}');
