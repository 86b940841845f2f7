"""Reading weights: single files in every layout that is about, and the modules that they fill."""
