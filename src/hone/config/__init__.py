"""The configuration: one schema, from which checks, help, recipes and the reference page come."""

from hone.config.load import load_config
from hone.config.schema import Config
from hone.config.write import resolved_yaml

__all__ = ["Config", "load_config", "resolved_yaml"]
