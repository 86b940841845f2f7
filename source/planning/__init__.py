"""Pure arithmetic: what to generate, and where it goes. No files, no database."""
