"""The imperative shell over ports: gates, analysis loop, rollback, intake. Knows no Prefect."""
