"""The task half: what a row of the tasks table means. No torch in here."""
