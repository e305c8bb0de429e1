"""The configuration file `ultra.toml`."""

from ultra.config.loading import load_configuration

__all__ = ["load_configuration"]
