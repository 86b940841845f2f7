"""What pyproject.toml has no words for: the Supabase project travels in the wheel, as `source/supabase`."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SUPABASE = Path(__file__).resolve().parent / "supabase"


class BuildWithSupabase(build_py):
    """Packages and modules, and beside them the migrations and Edge Functions without their tests."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "source" / SUPABASE.name
            left_out = shutil.ignore_patterns("tests", "storage_tests", ".*", "README.md")
            shutil.copytree(SUPABASE, target, ignore=left_out, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithSupabase})
