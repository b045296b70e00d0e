"""The built-in data sets of benchkit, as plugins that use only benchkit's public names."""
