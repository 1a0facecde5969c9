"""The canary judge: pure sequential statistics over a mergeable count table. No I/O, no clock, no randomness."""
