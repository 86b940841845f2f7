"""Supabase on one machine, for development and tests: Postgres, an S3 server, our Edge Functions behind a gateway.

`python -m source.devstack up` starts it; docs/supabase.md shows how it is used. No Docker, nothing but packages of the
extra `dev`. Nothing here is meant to be reached from another machine: all of it listens on 127.0.0.1.
"""
