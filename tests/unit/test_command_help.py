"""Help, examples and flags of every command, and what completes them in a shell."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from source.completion import completion_script
from source.settings import load_settings
from Wan2GP.command_line import Command

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import commands_page  # noqa: E402

import add_task  # noqa: E402
import debug  # noqa: E402

PARSERS = {each.prog: each for each in commands_page.parsers()}

#: the flags of workers that fleets start already, and a value for each
KNOWN_FLAGS = {
    "--main-output-dir": "x", "--poll-interval": "10", "--debug": None, "--worker": "gpu-1", "--migrate-only": None,
    "--save-logging": None, "--colour-match-videos": None, "--mask-active-frames": None,
    "--no-mask-active-frames": None,
    "--preload-model": "t2v", "--db-type": "sqlite", "--supabase-url": "https://a.supabase.co",
    "--reigh-access-token": "@token", "--supabase-access-token": "@token", "--supabase-anon-key": "key",
    "--wgp-attention-mode": "sdpa", "--wgp-compile": "transformer", "--wgp-profile": "4", "--wgp-vae-config": "1",
    "--wgp-boost": "2", "--wgp-preload": "0", "--wgp-transformer-quantization": "bf16",
    "--wgp-transformer-dtype-policy": "bf16", "--wgp-text-encoder-quantization": "bf16", "--wgp-vae-precision": "32",
    "--wgp-mixed-precision": "0", "--wgp-preload-policy": "P,S", "--db-file": "tasks.db", "--queue-workers": "1",
}  # fmt: skip


def all_parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from all_parsers(each)


def command_of(line: str) -> tuple[str, list[str]]:
    """The command of an example, and its arguments: "eval $(python -m x env)" is the inner one."""
    inner = re.search(r"\$\((.*)\)", line)
    words = [word for word in shlex.split(inner[1] if inner else line) if not re.match(r"[A-Z_]+=", word)]
    if words[:2] == ["python", "-m"]:
        return " ".join(words[:3]), words[3:]
    return words[1], words[2:]


@pytest.mark.parametrize("parser", PARSERS.values(), ids=PARSERS)
def test_every_command_has_examples_that_it_takes_and_says_its_exit_codes(parser: Command) -> None:
    assert parser.examples and 0 in parser.codes and 1 in parser.codes
    text = parser.format_help()
    for line, meaning in parser.examples:
        assert line in text and meaning in text
        prog, arguments = command_of(line)
        assert prog == parser.prog
        parser.parse_args(arguments)
    assert "--version" in text
    assert all(action.help for each in all_parsers(parser) for action in each._actions if action.option_strings)


def test_no_file_of_scripts_that_takes_flags_is_missing_among_the_commands() -> None:
    taking = {f"scripts/{path.name}" for path in (ROOT / "scripts").glob("*.py") if "def parser(" in path.read_text()}
    assert taking <= set(PARSERS)
    ours = [
        path
        for half in ("source", "headless", "Wan2GP", "scripts", "benchmarks")
        for path in (ROOT / half).rglob("*.py")
    ]
    assert [path for path in ours if "argparse.ArgumentParser(" in path.read_text(encoding="utf-8")] == []


@pytest.mark.parametrize("flag", KNOWN_FLAGS)
def test_a_worker_takes_each_flag_that_fleets_start_it_with(flag: str) -> None:
    value = KNOWN_FLAGS[flag]
    given = vars(PARSERS["worker.py"].parse_args([flag, *([value] if value else [])]))
    for name in ("until_idle", "migrate_only", "supervise", "supervised"):
        given.pop(name)
    assert load_settings(**given)


@pytest.mark.parametrize("flag", ["--delete-db", "--apply-reward-lora"])
def test_a_flag_that_nothing_answers_to_is_refused_with_what_to_do(
    flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        PARSERS["worker.py"].parse_args([flag])
    assert left.value.code == 1
    assert f"{flag} is no longer there: " in capsys.readouterr().err


def test_more_queue_workers_change_nothing_and_the_message_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    given = vars(PARSERS["worker.py"].parse_args(["--queue-workers", "4"]))
    assert "queue_workers" not in given
    assert "--queue-workers is ignored" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--id", "x"], "--wait"),
        (["--wait", "--id", "x", "--type", "t2v"], "three ways"),
        (["--type", "t2v", "--params", "{}", "--dry-run"], "--from-wangp"),
        (["--type", "t2v", "--params", "{}", "--timeout", "5"], "--wait"),
        (["--wait", "--id", "x", "--timeout", "0"], "above 0"),
        (["--print-completion", "cmd"], "invalid choice"),
        (["--type", "t2v"], "--params"),
    ],
)
def test_flags_that_make_no_sense_are_bad_input(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = add_task.parser()
    with pytest.raises(SystemExit) as left:
        add_task.check(flags, flags.parse_args(arguments))
    written = capsys.readouterr()
    assert (left.value.code, written.out) == (1, "")
    assert said in written.err and "--help" in written.err


def script_of(command: str, shell: str, also: str = "") -> str:
    return completion_script({"add_task.py": add_task, "debug.py": debug}[command].parser(), shell, also)


def test_the_command_itself_prints_the_script() -> None:
    command = [sys.executable, "debug.py", "--print-completion", "bash"]
    made = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=True)
    assert (made.stdout, made.stderr) == (script_of("debug.py", "bash"), "")


@pytest.mark.parametrize(
    ("line", "among"),
    [
        ("add_task.py --type travel_", "travel_orchestrator"),
        ("add_task.py --help upsc", "upscale_video"),
        ("add_task.py --dep", "--dependant-on"),
        ("debug.py wh", "why"),
        ("debug.py tasks --st", "--status"),
        ("debug.py doctor --model vace_", "vace_14B"),
    ],
)
def test_bash_completes_commands_flags_and_names(line: str, among: str, completions: dict[str, str]) -> None:
    words = line.split()
    program = f"""
    source /dev/stdin
    given=({" ".join(map(shlex.quote, words))})
    registered=$(complete -p "${{given[0]}}") || exit 9
    [[ $registered =~ -F\\ ([^ ]+) ]] || exit 8
    COMP_WORDS=("${{given[@]}}") COMP_CWORD={len(words) - 1} COMP_LINE={shlex.quote(line)} COMP_POINT={len(line)}
    "${{BASH_REMATCH[1]}}" "${{given[0]}}" "${{given[-1]}}" "${{given[-2]}}"
    printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    answer = subprocess.run(
        ["bash", "--norc", "-c", program], input=completions[words[0]], text=True, capture_output=True, check=True
    )
    found = answer.stdout.split()
    assert among in found
    assert all(each.startswith(words[-1]) for each in found)


@pytest.fixture(scope="module")
def completions() -> dict[str, str]:
    """The bash script of each command."""
    return {command: script_of(command, "bash") for command in ("add_task.py", "debug.py")}


def needed(shell: str) -> str:
    """The shell, or no test."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    return shell


def test_fish_completes_commands_and_names(tmp_path: Path) -> None:
    fish = needed("fish")
    (tmp_path / "add_task.fish").write_text(script_of("add_task.py", "fish"))
    program = f"source {tmp_path}/add_task.fish; complete -C 'add_task.py --type travel_'"
    made = subprocess.run([fish, "--no-config", "-c", program], text=True, capture_output=True, check=True)
    assert "travel_orchestrator" in [line.split("\t")[0] for line in made.stdout.splitlines()]


def test_zsh_registers_what_completes(tmp_path: Path) -> None:
    zsh = needed("zsh")
    (tmp_path / "script").write_text(script_of("add_task.py", "zsh"))
    program = (
        f'autoload -U compinit; compinit -u -d {tmp_path}/dump; eval "$(cat {tmp_path}/script)"; '
        "print -r -- $_comps[add_task.py]; whence -w $_comps[add_task.py]"
    )
    made = subprocess.run([zsh, "-fc", program], text=True, capture_output=True, check=True)
    assert (made.stdout.split(), made.stderr) == (["_shtab_add_task_py", "_shtab_add_task_py:", "function"], "")


@pytest.mark.parametrize(
    ("shell", "line"), [("bash", "complete .* mine"), ("zsh", "compdef .* mine"), ("fish", "complete -c mine .*")]
)
def test_a_command_is_also_completed_by_the_name_that_it_was_called_by(shell: str, line: str) -> None:
    assert re.search(f"^{line}$", script_of("add_task.py", shell, "mine"), re.MULTILINE)
    assert not re.search(f"^{line}$", script_of("add_task.py", shell, "add_task.py"), re.MULTILINE)


@pytest.mark.parametrize(
    ("command", "late"), [("add_task", {"shtab", "source.following", "source.wangp", "rich"}), ("debug", {"shtab"})]
)
def test_what_completes_follows_and_draws_is_imported_when_it_is_asked_for(command: str, late: set[str]) -> None:
    program = f"import sys, {command}; {command}.parser(); print(*({late!r} & set(sys.modules)))"
    made = subprocess.run([sys.executable, "-c", program], cwd=ROOT, text=True, capture_output=True, check=True)
    assert made.stdout.strip() == ""
