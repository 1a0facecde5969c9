"""The traffic plane of one machine: supervisor, Envoy, model servers, control API, live page."""
