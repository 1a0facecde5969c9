"""The world outside, one module each; the only importers of service clients."""
