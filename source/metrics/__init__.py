"""What a worker and a database tell those who watch them: samples for the database, metrics for Prometheus."""
