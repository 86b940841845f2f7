"""Typed parameters: the only place where a row's JSON becomes typed."""

from source.params.base import Parsed, TaskParams, parse_params

__all__ = ["Parsed", "TaskParams", "parse_params"]
