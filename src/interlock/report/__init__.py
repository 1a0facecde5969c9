"""The release report: one release as people read it afterwards, drawn from its evidence records and nothing else."""
