"""The configuration: one schema, from which checks, help, recipes and the reference page come."""

from hone.config.dump import resolved_yaml
from hone.config.load import load_config
from hone.config.schema import Config

__all__ = ["Config", "load_config", "resolved_yaml"]
