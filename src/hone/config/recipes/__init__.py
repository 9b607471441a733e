"""The recipes: YAML files that `hone init` writes, each with the values of a known training set-up."""
