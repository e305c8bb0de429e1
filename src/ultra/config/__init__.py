"""The configuration file `ultra.toml`."""

from ultra.config.loading import (
    CacheConfig,
    Configuration,
    DeploymentConfig,
    ModelConfig,
    load_configuration,
)

__all__ = ["CacheConfig", "Configuration", "DeploymentConfig", "ModelConfig", "load_configuration"]
