-- Personal access tokens. A token is shown once, when it is made; the table keeps its SHA-256.

set lock_timeout = '10s';
set statement_timeout = '5min';

create function private.hash_of(p_token text) returns text
language sql immutable set search_path = ''
as $$
    select encode(sha256(convert_to(p_token, 'UTF8')), 'hex')
$$;

-- A new token of the caller; the service names the person. SECURITY DEFINER: nobody but the service sees the table.
create function public.create_api_token(p_name text default '', p_user_id uuid default null) returns jsonb
language plpgsql security definer set search_path = ''
as $$
declare
    v_user_id uuid := coalesce(private.person(), p_user_id);
    v_id uuid;
    -- 244 random bits
    v_token text := 'pat_' || replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '');
begin
    if v_user_id is null or (p_user_id is not null and p_user_id <> v_user_id) then
        raise exception 'a token belongs to a person' using errcode = 'PT403', column = 'user_id';
    end if;
    insert into public.users (id) values (v_user_id) on conflict (id) do nothing;
    insert into public.user_api_tokens (user_id, token_hash, name)
    values (v_user_id, private.hash_of(v_token), p_name) returning id into v_id;
    return jsonb_build_object('id', v_id, 'token', v_token);
end
$$;

-- Returns whether the caller had such a token. SECURITY DEFINER as above.
create function public.revoke_api_token(p_id uuid) returns boolean
language plpgsql security definer set search_path = ''
as $$
declare
    v_person uuid := private.person();
begin
    delete from public.user_api_tokens where id = p_id and (v_person is null or user_id = v_person);
    return found;
end
$$;

-- Whose token it is, or null. For Edge Functions, which ask as the service before they act as that person. A busy token's
-- row is written once a minute: its requests would wait for each other.
create function public.user_of_token(p_token text) returns uuid
language sql set search_path = ''
as $$
    update public.user_api_tokens set last_used_at = now()
    where token_hash = private.hash_of(p_token)
        and (last_used_at is null or last_used_at < now() - interval '1 minute');
    select user_id from public.user_api_tokens where token_hash = private.hash_of(p_token)
$$;
