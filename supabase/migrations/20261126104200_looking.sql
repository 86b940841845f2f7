-- What people who look at an installation ask beside lists and rows.

set lock_timeout = '10s';
set statement_timeout = '5min';

-- A UUID that begins with these digits and goes on with this one; null where they are none.
create function private.padded_uuid(p_digits text, p_digit text) returns uuid
language sql immutable set search_path = ''
as $$
    select case when p_digits ~ '^[0-9a-f]{1,32}$' then rpad(p_digits, 32, p_digit)::uuid end
$$;

-- The ids of tasks that begin so, in their order: a range of the primary key. Dashes may be left out.
create function public.task_ids_like(p_prefix text, p_limit bigint default 10) returns jsonb
language sql stable set search_path = ''
as $$
    select coalesce(jsonb_agg(found.id order by found.id), '[]') from (
        select task.id
        from (select lower(replace(p_prefix, '-', '')) as digits) as asked, public.tasks as task
        where asked.digits ~ '^[0-9a-f]{1,32}$'
            and task.id >= private.padded_uuid(asked.digits, '0') and task.id <= private.padded_uuid(asked.digits, 'f')
        order by task.id limit greatest(p_limit, 0)
    ) as found
$$;

grant execute on function private.padded_uuid(text, text) to authenticated, service_role;
select private.open_to('{task_ids_like}', '{}');
