-- The bucket of hosted Supabase Storage. Where there is no such storage (a plain Postgres) there is nothing to do.
--
-- storage.objects has row level security and gets no policy here: nobody writes into the bucket but Storage itself, on
-- behalf of who shows a presigned address. Those are made by generate-upload-url alone, for one key, after
-- declare_upload has seen that the claim holds the task.

set lock_timeout = '10s';
set statement_timeout = '5min';

do $$
begin
    if to_regclass('storage.buckets') is not null then
        -- one that exists keeps what its operator chose
        execute $bucket$
            insert into storage.buckets (id, name, public) values ('image_uploads', 'image_uploads', true)
            on conflict do nothing $bucket$;
    end if;
end
$$;
