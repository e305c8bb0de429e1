"""The configuration file `ultra.toml`."""

from ultra.config.configuration import Configuration
from ultra.config.loading import load_configuration
from ultra.config.sections import CacheConfig, DeploymentConfig, ModelConfig

__all__ = ["CacheConfig", "Configuration", "DeploymentConfig", "ModelConfig", "load_configuration"]
