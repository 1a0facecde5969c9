"""Release profiles: versioned policy, read strictly."""
