-- What a row may ask for at most, whoever writes it: front ends insert rows with plain SQL. The same limits as those of
-- create-task and of source/store/types.py; a larger priority than 2^53 - 1 is not exact in every JSON. Rows that are
-- there already stay as they are.

set lock_timeout = '10s';
set statement_timeout = '5min';

-- Looked at first of the triggers (they run in the order of their names), before anything is done for each dependency.
create function private.check_bounds() returns trigger
language plpgsql set search_path = ''
as $$
begin
    if new.priority not between -9007199254740991 and 9007199254740991 then
        raise exception 'must be between -9007199254740991 and 9007199254740991, not %', new.priority
            using errcode = 'PT400', column = 'priority';
    end if;
    if cardinality(new.dependant_on) > 1000 then
        raise exception 'a task may depend on 1000 others at most, not on %', cardinality(new.dependant_on)
            using errcode = 'PT400', column = 'dependant_on';
    end if;
    return new;
end
$$;

create trigger tasks_bounds before insert or update of priority, dependant_on on public.tasks
for each row execute function private.check_bounds();

select private.open_to('{}', '{}');
