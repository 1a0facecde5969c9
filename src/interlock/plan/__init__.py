"""Pure plans: which phase of a release follows which, at what weight, for how long."""
