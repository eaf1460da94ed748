"""The orchestration sidecar: one HTTP server next to a fleet of coding agents."""

__version__ = "0.1.0"
